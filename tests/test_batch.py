"""`unianimate batch`: tables of jobs, each made once, none in another's way."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image
from synthetic import GOLDEN

from unianimate_core.animate_options import AnimateOptions
from unianimate_core.batch.table import read_jobs
from unianimate_core.errors import InputError
from unianimate_core.video import read_video

EXAMPLES = GOLDEN.parent.parent / "samples"
COMMON = {name: None for name in ("checkpoint", "vae", "clip", "dtype", "device")} | {"overwrite": False}
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as Ray runs its workers: the last bits depend on it
SMALL = {"size": "64x96", "steps": 1, "frames": 2}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "motion.json").write_text(json.dumps(json.loads((EXAMPLES / "dance.json").read_text())[:24]))
    Image.open(EXAMPLES / "person.jpg").resize((64, 96)).save(tmp_path / "person.png")
    return tmp_path


def row(output, **options):
    return {"reference": "person.png", "motion": "motion.json", "output": output, **SMALL, **options}


def table(folder, rows, name="jobs.json"):
    path = folder / name
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return path


def batch(folder, *arguments):
    command = [sys.executable, "-m", "unianimate_core.cli", "batch", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=280, encoding="utf-8", env=ONE_THREAD
    )


@pytest.mark.parametrize("name", ["jobs.csv", "jobs.json"])
def test_values_become_options(folder, name):
    rows = [row("a.mp4", seed=7, guidance="1.5", codec="h265", last="pad"), row("b.mp4", seed="", reference_pose="")]
    rows[1] = {**dict.fromkeys(rows[0], ""), **rows[1]}
    rows = [{**dict.fromkeys(rows[1], ""), **one} for one in rows]
    first, second = read_jobs(table(folder, rows, name), AnimateOptions, COMMON)
    assert (first.problem, second.problem) == ("", "")
    assert first.options == AnimateOptions(
        reference=folder / "person.png",
        motion=folder / "motion.json",
        output=folder / "a.mp4",
        size="64x96",
        steps=1,
        frames="2",
        seed=7,
        guidance=1.5,
        codec=type(first.options.codec)("h265"),
        last=type(first.options.last)("pad"),
    )
    assert (second.options.seed, second.options.reference_pose) == (0, None), "not the default for an empty cell"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reference,motion,output\n", "has no jobs"),
        ("", "has no jobs"),
        ("reference,motion\np.png,m.json", "no column 'output'"),
        ("reference,motion,output,guidence\np.png,m.json,a.mp4,1", "did you mean 'guidance'"),
        ("reference,motion,output,checkpoint\np.png,m.json,a.mp4,x", "'checkpoint', which is no option of a job"),
        ("reference,motion,output,seed,seed\np.png,m.json,a.mp4,1,1", "'seed' twice"),
        ('reference,motion,output\np.png,m.json,"a.mp4\np.png,m.json,b.mp4', "is no CSV"),
        ("reference,motion,output\np.png,m.json,a.mp4,3", "job 1 has 4 cells, there are 3 columns"),
        ("reference,motion,output\np.png,m.json,a.mp4\np.png,n.json,./x/../a.mp4", "jobs 1 and 2 have one output"),
    ],
)
def test_tables_that_cannot_be_are_refused(tmp_path, text, words):
    (tmp_path / "jobs.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_jobs(tmp_path / "jobs.csv", AnimateOptions, COMMON)


@pytest.mark.parametrize("text", ["{}", "[1]", "[", "[" * 100_000, '{"reference": 1}'])
def test_json_that_is_no_table(tmp_path, text):
    (tmp_path / "jobs.json").write_text(text)
    with pytest.raises(InputError, match=r"jobs\.json"):
        read_jobs(tmp_path / "jobs.json", AnimateOptions, COMMON)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "nobody.png"}, "reference: there is no .*nobody.png"),
        ({"reference": ""}, "reference is empty"),
        ({"audio": "none.wav"}, "audio: there is no"),
        ({"output": "a" * 300 + ".mp4"}, "too long|cannot"),
        ({"steps": "many"}, "steps is 'many': give a whole number"),
        ({"steps": 2.5}, "steps is 2.5: give a whole number"),
        ({"steps": True}, "steps is True"),
        ({"seed": [1]}, r"seed is \[1\]"),
        ({"seed": "1e400"}, "seed is '1e400'"),
        ({"fit": "squash"}, "give crop or pad or stretch"),
        ({"reference": "a\0b"}, "reference is "),
        ({"motion": 3}, "motion is 3"),
    ],
)
def test_a_job_that_cannot_be_says_why_and_the_others_stay(folder, options, words):
    bad, good = read_jobs(table(folder, [row("a.mp4") | options, row("b.mp4")]), AnimateOptions, COMMON)
    assert not good.problem
    with pytest.raises(InputError, match=words):
        raise InputError(bad.problem)


def test_a_batch_makes_what_it_can_and_reports(folder):
    rows = [row("a.mp4"), row("b.mp4", reference="nobody.png"), row("c.mp4", start=99), row("d.mp4", seed=1)]
    jobs = table(folder, rows)
    run = batch(folder, jobs, "--report", "report.json")
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    report = json.loads((folder / "report.json").read_text())
    assert [outcome["state"] for outcome in report] == ["done", "failed", "failed", "done"]
    assert "nobody.png" in report[1]["reason"]
    assert "24 frames" in report[2]["reason"]
    made = {name: (folder / name).read_bytes() for name in ("a.mp4", "d.mp4")}
    assert all(read_video(folder / name)[0].shape == (2, 96, 64, 3) for name in made)
    assert not list(folder.glob("*.partial"))

    assert batch(folder, jobs, "--report", "jobs.json").returncode == 2, "the table itself was replaced"
    run = batch(folder, table(folder, [row("a.mp4"), row("d.mp4", seed=1)]), "--report", "report.csv")
    assert run.returncode == 0, run.stderr
    with (folder / "report.csv").open() as file:
        assert [outcome["state"] for outcome in csv.DictReader(file)] == ["skipped", "skipped"]
    assert {name: (folder / name).read_bytes() for name in made} == made


def test_a_video_of_a_batch_is_that_of_the_command(folder):
    run = batch(folder, table(folder, [row("a.mp4"), row("b.mp4", seed=3)]))
    assert run.returncode == 0, run.stderr
    options = {**row("alone.mp4", seed=3)}
    command = [sys.executable, "-m", "unianimate_core.cli", "animate"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120, env=ONE_THREAD)
    assert (folder / "alone.mp4").read_bytes() == (folder / "b.mp4").read_bytes()


def test_on_ray_a_killed_workers_job_is_gone_on_with(folder):
    pytest.importorskip("ray")
    rows = [row(f"{number}.mp4", frames=24, segment=3, steps=2, seed=number) for number in range(4)]
    jobs = table(folder, rows)
    command = [sys.executable, "-m", "unianimate_core.cli", "batch", jobs, "--engine", "ray", "--workers", "2"]
    with subprocess.Popen(
        [*command, "--report", "report.json"], cwd=folder, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as run:
        deadline = time.monotonic() + 200
        while (
            run.poll() is None
            and time.monotonic() < deadline
            and len(list(folder.glob("[01].mp4.partial/segment_00001.mkv"))) < 2
        ):
            time.sleep(0.05)
        ours = psutil.Process(run.pid).children(recursive=True)
        worker = next(child for child in ours if "ray::Worker.make" in " ".join(child.cmdline()))
        worker.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        told = run.communicate(timeout=200)[1]
    assert run.returncode == 0, told
    report = json.loads((folder / "report.json").read_text())
    assert [(outcome["row"], outcome["state"]) for outcome in report] == [(n, "done") for n in (1, 2, 3, 4)]
    assert "segments are there already: going on" in told
    assert not list(folder.glob("*.partial"))

    once = folder / "once"
    once.mkdir()
    for name in ("person.png", "motion.json"):
        shutil.copy(folder / name, once)
    assert batch(once, table(once, rows)).returncode == 0
    for number in range(4):
        assert (once / f"{number}.mp4").read_bytes() == (folder / f"{number}.mp4").read_bytes()
