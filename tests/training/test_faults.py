"""Runs that meet a fault say what is wrong and keep what is good; and what runs report."""

import json
import os
import re
import shutil
import time

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from training_run import (
    HEIGHT,
    WIDTH,
    command,
    config_of,
    curve,
    rows_of,
    same_curves,
    train,
    write_config,
)

from unianimate_core import InputError, load_unet
from unianimate_core.training.loop import Trainer


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, where, monkeypatch):
    whole = train(tmp_path, **where, steps=6, output="whole")
    written = []

    def full(tensors, path):
        written.append(path)
        if len(written) == 4:  # the averages of the second checkpoint
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr("unianimate_core.training.checkpoints.save_file", full)
    with pytest.raises(InputError) as caught:
        train(tmp_path, **where, steps=6)
    for part in ("step-000004", "No space left on device", "step-000002, is whole", "free some space"):
        assert part in str(caught.value)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000002"]
    monkeypatch.undo()
    same_curves(whole, train(tmp_path, **where, steps=6))


def test_reports_that_cannot_be_written_do_not_end_the_run(tmp_path, where, monkeypatch, caplog):
    whole = train(tmp_path, **where, steps=4, output="whole")
    run = tmp_path / "run"
    for name in ("unianimate.safetensors", "loss.png", "samples/step-000002.png"):
        (run / name).mkdir(parents=True)  # a folder cannot be replaced by a file
    train(tmp_path, **where, steps=4, **{"report.samples": 2, "report.sampling_steps": 2})
    for name in ("unianimate.safetensors", "loss.png", "step-000002.png"):
        assert re.search(rf"cannot write .*{name}.*The training goes on", caplog.text)
    assert (run / "samples" / "step-000004.png").is_file()
    same_curves(whole, rows_of(run))
    shutil.rmtree(run)

    from unianimate_core.training.report import Log

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Log, "write", full)
    train(tmp_path, **where, steps=4)
    assert "No space left on device" in caplog.text
    assert load_unet(run / "unianimate.safetensors")


def test_a_rename_that_fails_for_a_moment_is_tried_again(tmp_path, where, monkeypatch):
    from pathlib import Path

    real, failures = Path.replace, []

    def held(path, target):
        if path.name.endswith(".tmp") and len(failures) < 2:
            failures.append(path)
            raise PermissionError(13, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", held)
    monkeypatch.setattr("time.sleep", lambda _: None)
    train(tmp_path, **where, steps=2)
    assert len(failures) == 2
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-000002"]

    def always_held(path, target):
        failures.clear()
        return held(path, target)

    monkeypatch.setattr(Path, "replace", always_held)
    with pytest.raises(InputError, match=r"step-000004\.tmp is whole, but cannot be renamed to step-000004"):
        train(tmp_path, **where, steps=4)
    (checkpoints / "step-000004.tmp").rename(checkpoints / "step-000004")
    monkeypatch.undo()
    assert Trainer(config_of(tmp_path, **where)).step == 4


def test_what_killed_runs_left_is_removed(tmp_path, where):
    samples = tmp_path / "run" / "samples"
    samples.mkdir(parents=True)
    left = [samples.parent / ".loss.png.0011.partial", samples / ".step-000002.png.0011.partial"]
    (tmp_path / "cache").mkdir()
    old, fresh = tmp_path / "cache" / ".a.safetensors.0.partial", tmp_path / "cache" / ".b.safetensors.1.partial"
    for path in (*left, old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90000,) * 2)
    train(tmp_path, **where | {"data.cache": "cache"}, steps=1)
    assert not any(path.exists() for path in (*left, old))
    assert fresh.exists()  # another machine may be writing it


def test_an_output_that_cannot_be_written_is_told_before_the_videos_are_read(tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write into .*file.*choose another place"):
        Trainer(config_of(tmp_path, **where | {"data.folder": "absent"}, output="file/run"))


def test_ways_that_part_the_network_are_refused(tmp_path, where, monkeypatch):
    from accelerate import Accelerator, DistributedType

    for kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        monkeypatch.setattr(Accelerator, "distributed_type", property(lambda _, kind=kind: kind))
        with pytest.raises(InputError, match=f"accelerate is set up for {kind.value}"):
            Trainer(config_of(tmp_path, **where))


def test_gradients_that_stay_infinite_in_float16_stop_the_run(tmp_path, where, monkeypatch):
    from accelerate import Accelerator

    norms = iter([1.0, *[torch.inf] * 3, 1.0, *[torch.inf] * 9])
    monkeypatch.setattr("unianimate_core.training.loop.SKIPPED_STEPS", 5)
    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(next(norms)))
    trainer = Trainer(config_of(tmp_path, **where, steps=20, **{"report.checkpoint": 20}))
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", enabled=False)  # the CPU's own float16 has none
    with pytest.raises(InputError, match=r"gradients of 5 steps in a row, to step 10, are infinite in float16.*bf16"):
        trainer.run()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cached_file_that_goes_during_the_run_is_told_in_one_line(tmp_path, data, where, workers):
    shutil.copytree(data / "cache", tmp_path / "cache")
    trainer = Trainer(config_of(tmp_path, **where | {"data.cache": "cache", "training.workers": workers}))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputError) as caught:
        trainer.run()
    assert re.match(r"\S+clip\d-\w+.safetensors cannot be read any more .*frames \d+ to \d+", str(caught.value))
    assert "Traceback" not in str(caught.value)


def test_the_held_out_loss_shows_overfitting_and_changes_no_curve(tmp_path, data, where):
    changes = where | {"data.held_out": 0.3, "data.frames": 2, "training.ema": 0.5, "training.learning_rate": 4e-3}
    train(tmp_path, **changes, steps=6, output="whole", **{"report.checkpoint": 3})
    path = tmp_path / "whole" / "log.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    measured = {row["step"]: row["held_out"] for row in rows if "held_out" in row}
    assert sorted(measured) == [3, 6]
    train(tmp_path, **changes, steps=4, output="parts", **{"report.checkpoint": 3})
    train(tmp_path, **changes, steps=6, output="parts", **{"report.checkpoint": 3})
    again = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    again = {row["step"]: row["held_out"] for row in again if "held_out" in row}
    assert sorted(again) == [3, 4, 6]
    assert again[6] == pytest.approx(measured[6], rel=1e-6)
    # of what the exported network predicts: v of 32 clips of a video that no sample is of
    trainer = Trainer(config_of(tmp_path, **changes, output="whole", steps=6))
    (held,) = {plan.video for plan in trainer.held_out.plans}
    name = trainer.held_out.samples.videos[held].name
    assert name not in {video.name for video in trainer.videos}
    assert len(trainer.videos) == 2
    unet = load_unet(tmp_path / "whole" / "unianimate.safetensors")
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    errors = []
    for clip in (trainer.held_out[number] for number in range(32)):
        a = float(root[clip["timestep"]])
        s = (1 - a**2) ** 0.5
        given = {n: t[None] / 255 if t.dtype == torch.uint8 else t[None] for n, t in clip["conditions"].items()}
        given = {n: t for n, t in given.items() if clip["present"][n]}
        with torch.no_grad():
            v = unet((a * clip["latents"] + s * clip["noise"])[None], torch.tensor([clip["timestep"]]), **given)[0]
        errors.append(float((v - (a * clip["noise"] - s * clip["latents"])).square().mean()))
    assert measured[6] == pytest.approx(np.mean(errors), rel=2e-3)  # the export is in float16


def test_a_loss_that_is_nan_stops_the_run_and_names_the_sample(tmp_path, data, where):
    shutil.copytree(data / "cache", tmp_path / "cache")
    cached = next((tmp_path / "cache").glob("clip1-*"))
    tensors = load_file(cached)
    tensors["latents"][:] = torch.nan
    save_file(tensors, cached)
    with pytest.raises(InputError) as caught:
        train(tmp_path, **where | {"data.cache": "cache", "report.checkpoint": 1, "training.batch": 2}, steps=50)
    message = str(caught.value)
    step = int(re.search(r"the loss is NaN or infinite at step (\d+) \(clip1.mp4, frames \d+ to \d+", message)[1])
    assert "clip0" not in message
    assert "clip2" not in message
    checkpoints = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    if step > 1:
        assert checkpoints[-1].name == f"step-{step - 1:06d}"
        assert f"{checkpoints[-1].name} is the last checkpoint" in message
        assert all(tensor.isfinite().all() for tensor in load_file(checkpoints[-1] / "model.safetensors").values())
    else:
        assert checkpoints == []


def test_a_run_that_diverges_stops(tmp_path, where):
    with pytest.raises(InputError, match=r"NaN or infinite at step \d+ .*lower learning_rate.*step-000001 is the last"):
        train(tmp_path, **where, **{"training.learning_rate": 1e30, "report.checkpoint": 1}, steps=20)


def test_reports(tmp_path, data, where):
    cv2 = pytest.importorskip("cv2")
    train(tmp_path, **where, steps=2, **{"report.samples": 2, "report.sampling_steps": 2, "report.sample_clips": 2})
    run = tmp_path / "run"
    sheet = cv2.imread(str(run / "samples" / "step-000002.png"))
    # two clips of three rows; the reference and three frames
    assert sheet.shape == (2 * 3 * HEIGHT, 4 * WIDTH, 3)
    assert sheet[:HEIGHT].std() > 0
    assert cv2.imread(str(run / "loss.png")).std() > 0
    assert not list(run.rglob("*partial*"))
    row = rows_of(run)[2]
    assert row.keys() == {"step", "loss", "smoothed", "learning_rate", "gradient_norm", "seconds", "samples"}
    assert row["samples"] == 2


def test_tensorboard_is_asked_for_where_it_is_missing(tmp_path, where, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorboard" or name.startswith("tensorboard."):
            raise ImportError("No module named 'tensorboard'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(__import__("sys").modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(InputError, match="install the package tensorboard"):
        train(tmp_path, **where, steps=2, **{"report.tensorboard": True})


def test_precisions(tmp_path, where):
    full = train(tmp_path, **where, output="full")
    AcceleratorState._reset_state(True)
    half = train(tmp_path, **where, output="half", **{"training.precision": "bf16"})
    np.testing.assert_allclose(curve(half), curve(full), rtol=0.05)
    assert curve(half) != curve(full)
    checkpoint = tmp_path / "half" / "checkpoints" / "step-000006"
    assert {tensor.dtype for tensor in load_file(checkpoint / "model.safetensors").values()} == {torch.float32}
    AcceleratorState._reset_state(True)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"\[training\] precision is 'fp16', which cpu has not"):
            train(tmp_path, **where, output="fp16", **{"training.precision": "fp16"})


def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    path = write_config(tmp_path, stepz=3)
    process = command(path)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith(f"error: {path}: stepz: unknown")
    assert "Traceback" not in errors
