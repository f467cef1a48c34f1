"""The script for a GPU, tried on the CPU in small: all its parts, and what it does when one of them fails."""

import json
import subprocess
import sys
import time

import pytest
import torch
from card.parts import PARTS, run_part
from card.report import report
from card.setup import Setup, attempt, relative_error
from gpu import Part, main, plan, run_all
from graphs import ROOT

TINY = Setup(torch.device("cpu"), tiny=True)
# Found on the path before any other: what the script must not need cannot be imported.
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cv2", "scipy", "psutil", "PIL", "av", "rich", "typer", "diffusers", "skimage",
                                      "comfy", "mamba_ssm", "open_clip", "onnxruntime", "matplotlib", "accelerate"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker())
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def measured():
    alike = ("steps-transformer", "steps-mamba-float16", "limits-transformer")  # nothing new on a CPU
    return {name: run_part(name, TINY) for name in PARTS if not name.startswith(alike)}


def test_every_part_measures(measured):
    for name, rows in measured.items():
        assert rows, name
        assert not [row for row in rows if "error" in row], name
    steps = measured["steps-mamba-bfloat16"]
    assert [(row["frames"], row["size"]) for row in steps] == [(360, "768x512"), (32, "1216x768")]
    assert all(row["finite"] and row["seconds"] > 0 and row["flops"] > 0 for row in steps)
    checks = [row for row in measured["correctness"] if "left_out" not in row]
    assert {row["check"] for row in checks} >= {f"network, golden {name}" for name in ("cond", "uncond", "first_frame")}
    assert all(row["passed"] for row in checks)
    compiled = measured["clip-compiled"][0]
    assert compiled["graph_breaks"] == 0
    assert compiled["graphs"] in (1, 2)  # another where less memory was free at one of the calls
    assert compiled["difference"] < 1e-6


def test_a_measurement_that_fails_is_a_row():
    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    assert attempt(out_of_memory) == {"error": "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"}
    assert attempt(lambda: {"seconds": 1.0}) == {"seconds": 1.0}


def test_parts_that_hang_or_die_do_not_stop_the_others(tmp_path):
    rows = 'import json, sys; open(sys.argv[-1], "w").write(json.dumps([{"seconds": 1}]))'
    commands = {
        "hangs": f"import subprocess, sys, time\n{rows}\nsubprocess.Popen([sys.executable, '-c', 'import time; "
        f"time.sleep(60)', '{tmp_path}']); time.sleep(60)",
        "dies": "import os; os.abort()",
        "works": rows,
    }
    output = tmp_path / "results" / "gpu.json"
    parts = [Part(name, ["-c", code], 1.5 if name == "hangs" else 30) for name, code in commands.items()]
    start = time.monotonic()
    results = run_all(parts, output, minutes=1)
    assert time.monotonic() - start < 20
    assert json.loads(output.read_text()) == results
    assert results["parts"]["hangs"]["error"] == "stopped after 2 s"
    assert results["parts"]["hangs"]["measured"] == [{"seconds": 1}]  # what was there when it was stopped
    assert results["parts"]["dies"]["error"] == "ended with -6"
    assert (results["parts"]["works"]["measured"], results["parts"]["works"]["error"]) == ([{"seconds": 1}], None)
    if sys.platform == "linux":  # nor does what the part has started go on
        time.sleep(0.2)
        running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert not [line for line in running.splitlines() if line.endswith(str(tmp_path)) and "sleep" in line]
    late = run_all([Part("late", ["-c", rows], 30)], output, minutes=0)
    assert late["parts"]["late"]["error"] == "no time was left"
    assert late["parts"]["works"]["error"] is None  # kept from the run before


def test_report_sets_measurements_beside_the_goals(measured):
    step = {"temporal": "transformer", "dtype": "bfloat16", "frames": 32, "size": "768x512", "seconds": 0.25}
    step |= {"flops": 100e12, "share_of_matmul": 0.6, "peak_bytes": 5e9, "weight_bytes": 3e9}
    step |= {"estimated_activation_bytes": 1.9e9}
    limit = {"temporal": "mamba", "frames": 360, "size": "768x512", "limit": 24e9}
    scan = {"dtype": "bfloat16", "rows": 9, "frames": 33, "channels": 640, "bytes_per_second": 2e12}
    scans = [
        scan | {"implementation": "triton", "pass": "forward", "seconds": 0.001, "share_of_copy": 0.5},
        scan | {"implementation": "general, plain PyTorch", "pass": "forward", "seconds": 0.004, "share_of_copy": 0.1},
    ]
    parts = {
        "steps-transformer-bfloat16": [step],
        "limits-mamba": [limit | {"error": "OutOfMemoryError: no"}],
        "clip-graphs": [{"way": "graphs", "left_out": "CUDA graphs need CUDA"}],
        "scan-bfloat16-33": {"results": scans},
        "correctness": measured["correctness"],
    }
    lines = report(
        {
            "command": "c",
            "parts": {name: {"command": "", "measured": rows, "error": None} for name, rows in parts.items()},
        }
    ).splitlines()
    assert "| a guided step in bf16 at 50 % of the matrix products' rate | 60% | yes |" in lines
    assert "| mamba: 360 frames of 768x512 within 24 GB | OutOfMemoryError: no | no |" in lines
    assert "| transformer: 32 frames of 768x512 within 6 GB | not measured |  |" in lines
    assert "| 30 steps of 32 frames of 768x512 in 12 s | not measured |  |" in lines
    assert "| the Triton scan at 60 % of a copy's rate | 50% | no |" in lines
    assert "| the Triton scan 3 times as fast as a general one | 4.0 times | yes |" in lines
    assert "| transformer | bfloat16 | 768x512 | 32 | 0.250 | 400 | 60% | 5.0 | 4.9 | 25.9 |" in lines


def test_it_needs_few_packages(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *("--device", "cpu", "--tiny", "--run", "clip-plain")],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "clip-plain: way plain" in run.stdout


def test_parts_are_chosen_by_name(capsys):
    main(["--list", "--parts", "about,scan"])
    assert capsys.readouterr().out.split() == ["about", *(n.name for n in plan("cuda", False) if "scan" in n.name)]


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0])) == pytest.approx(4 / 3)
