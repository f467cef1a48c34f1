"""Runs: they learn, stop, go on, and leave whole files."""

import json
import logging
import os
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file, save_file
from training_run import (  # noqa: F401
    HEIGHT,
    WIDTH,
    command,
    config_of,
    make_videos,
    on_one_core,
    rows_of,
    train,
    write_config,
)

from unianimate_core import InputError, load_unet
from unianimate_core.training.checkpoints import Checkpoints
from unianimate_core.training.loop import Trainer


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps a process's settings, precision among them."""
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Videos with a filled cache, so that most runs need no autoencoder."""
    folder = tmp_path_factory.mktemp("data")
    make_videos(folder / "videos")
    Trainer(config_of(folder))
    AcceleratorState._reset_state(True)
    return folder


@pytest.fixture
def where(data, tmp_path):
    """A folder for runs on those videos."""
    return {"data.folder": str(data / "videos"), "data.cache": str(data / "cache")}


def curve(rows, name="loss"):
    return [rows[step][name] for step in sorted(rows)]


def same_curves(one, other, tolerance=1e-6):
    assert sorted(one) == sorted(other)
    for name in ("loss", "smoothed", "gradient_norm", "learning_rate"):
        np.testing.assert_allclose(curve(one, name), curve(other, name), rtol=tolerance, atol=tolerance)


def test_a_clip_is_learned(tmp_path, data, where):
    one = tmp_path / "one"
    one.mkdir()
    for name in ("clip0.mp4", "clip0.json"):
        shutil.copy(data / "videos" / name, one)
    changes = {"data.folder": str(one), "data.frames": 6, "data.stride": 1, "dropout.all_kept": 0.7}
    changes |= {"training.learning_rate": 4e-3, "training.batch": 4, "report.checkpoint": 60}
    loss = curve(train(tmp_path, **where | changes, steps=60))
    assert len(loss) == 60
    assert np.mean(loss[-15:]) < 0.7 * np.mean(loss[:5])


def test_resumed_is_as_uninterrupted(tmp_path, where):
    whole = train(tmp_path, **where, steps=7, output="whole", **{"training.ema": 0.5})
    for steps in (3, 5, 7):  # 3 and 5 are between the checkpoints of every 2
        parts = train(tmp_path, **where, steps=steps, output="parts", **{"training.ema": 0.5})
    same_curves(whole, parts)
    for file in ("model.safetensors", "ema.safetensors"):
        one, other = (load_file(tmp_path / name / "checkpoints" / "step-000007" / file) for name in ("whole", "parts"))
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)


def test_killed_at_any_moment_and_gone_on_is_as_uninterrupted(tmp_path, where):
    changes = {**where, "steps": 16, "training.batch": 2, "report.checkpoint": 1, "report.keep": 1}
    whole = train(tmp_path, **changes, output="whole")
    path = write_config(tmp_path, **changes, output="killed")
    log = tmp_path / "killed" / "log.jsonl"
    seed = random.randrange(10**6)
    print(f"killed by random.Random({seed})")  # another moment in each run of this test; a failure shows this line
    moment = random.Random(seed)
    goal = moment.randint(3, 9)
    process = command(path)
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= goal):
        time.sleep(0.01)
    time.sleep(moment.uniform(0, 0.1))
    process.kill()
    process.communicate()
    left = Checkpoints(tmp_path / "killed", 1).latest()
    assert json.loads((left / "state.json").read_text())["step"] >= goal - 1
    process = command(path)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "Going on after step" in errors
    same_curves(whole, rows_of(tmp_path / "killed"))
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()] == ["step-000016"]


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "optimizer.pt", "state.json"])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path, where, caplog, file):
    whole = train(tmp_path, **where, steps=5, output="whole")
    train(tmp_path, **where, steps=4)
    checkpoints = tmp_path / "run" / "checkpoints"
    damaged = checkpoints / "step-000004" / file
    damaged.write_bytes(bytes(damaged.stat().st_size))  # as a power cut leaves it
    same_curves(whole, train(tmp_path, **where, steps=5, **{"report.keep": 2}))
    assert f"{checkpoints / 'step-000004'} is damaged" in caplog.text
    names = ["step-000004", "step-000004.damaged", "step-000005"]
    assert sorted(path.name for path in checkpoints.iterdir()) == names


def test_when_no_checkpoint_is_whole_the_run_does_not_begin_anew(tmp_path, where):
    train(tmp_path, **where, steps=2)
    (tmp_path / "run" / "checkpoints" / "step-000002" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"step-000002 is damaged \(.+\), and no other checkpoint is whole"):
        train(tmp_path, **where, steps=4)


def test_a_checkpoint_of_before_this_version_is_gone_on_from(tmp_path, where, caplog):
    whole = train(tmp_path, **where, steps=4, output="whole")
    train(tmp_path, **where, steps=2)
    path = tmp_path / "run" / "checkpoints" / "step-000002" / "state.json"
    state = json.loads(path.read_text())
    del state["samples_per_step"], state["config"]["data"]["held_out"]
    path.write_text(json.dumps(state))
    caplog.set_level(logging.INFO, "unianimate_core")
    same_curves(whole, train(tmp_path, **where, steps=4))
    assert "held_out" not in caplog.text


def test_a_half_written_checkpoint_is_not_gone_on_from(tmp_path, where):
    whole = train(tmp_path, **where, steps=4, output="whole")
    train(tmp_path, **where, steps=2)
    checkpoints = tmp_path / "run" / "checkpoints"
    half = checkpoints / "step-000004.tmp"
    shutil.copytree(checkpoints / "step-000002", half)
    (half / "ema.safetensors").write_bytes((half / "ema.safetensors").read_bytes()[:500])
    (half / "state.json").unlink()
    same_curves(whole, train(tmp_path, **where, steps=4))
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-000002", "step-000004"]


class MeanColours:
    """In CLIP's place: an embedding that one can compute by hand."""

    def encode_image(self, pixels):
        return torch.nn.functional.pad(pixels.mean(dim=(2, 3)), (0, 29))

    def empty_prompt(self):
        return torch.full((5, 32), 0.5)


def test_clip_gives_image_embeddings_and_the_prompt(tmp_path, data, where, monkeypatch):
    for module in ("unianimate_core.clip", "unianimate_core.training.model"):
        monkeypatch.setattr(f"{module}.load_clip", lambda *args, **kwargs: MeanColours())
    (tmp_path / "clip.bin").write_bytes(b"weights")
    changes = where | {"data.cache": "cache", "data.clip": "clip.bin", "dropout.image": 0.0, "steps": 3}
    train(tmp_path, **changes, **{"report.checkpoint": 1, "report.keep": 3})
    folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
    weights = [load_file(folder / "model.safetensors")["pre_image_condition.0.weight"] for folder in folders]
    assert not torch.equal(weights[0], weights[-1])  # without CLIP it is left as it is
    video = Trainer(config_of(tmp_path, **changes)).videos[0]
    for frame in (0, 5):
        mean = torch.from_numpy(video.picture(frame) / 255).mean(dim=(0, 1)).float()
        torch.testing.assert_close(video.image(frame)[:3], mean, atol=0.02, rtol=0)
    bare = load_file(tmp_path / "run" / "unianimate.safetensors")
    del bare["empty_prompt"]
    save_file(bare, tmp_path / "bare.safetensors")
    own = {f"model.{name}": None for name in vars(config_of(tmp_path).model)} | {"model.checkpoint": "bare.safetensors"}
    train(tmp_path, **changes | own, output="more")
    assert torch.equal(load_unet(tmp_path / "more" / "unianimate.safetensors").empty_prompt, torch.full((5, 32), 0.5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_in_good_order(tmp_path, where, number):
    path = write_config(tmp_path, **where, steps=10000, **{"report.checkpoint": 10000, "training.workers": 1})
    process = command(path)
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= 2):
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    step = int(re.search(r"Stopped after step (\d+): the same command goes on", errors)[1])
    assert (
        json.loads((tmp_path / "run" / "checkpoints" / f"step-{step:06d}" / "state.json").read_text())["step"] == step
    )
    assert max(rows_of(tmp_path / "run")) == step
    assert load_unet(tmp_path / "run" / "unianimate.safetensors")


def test_accumulated_batches_are_one_batch(tmp_path, where):
    one = train(tmp_path, **where, output="one", **{"training.batch": 2})
    two = train(tmp_path, **where, output="two", **{"training.accumulate": 2})
    same_curves(one, two, tolerance=1e-5)


def test_two_processes_are_one_with_a_double_batch(tmp_path, where):
    one = train(tmp_path, **where, output="one", **{"training.batch": 2, "training.accumulate": 2})
    path = write_config(tmp_path, **where, output="two", **{"training.accumulate": 2})
    process = command(path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    same_curves(one, rows_of(tmp_path / "two"), tolerance=1e-5)
    assert errors.count("3 videos with 18 frames") == 1


def test_workers_and_other_intervals_change_no_curve(tmp_path, where):
    one = train(tmp_path, **where, output="one")
    other = train(tmp_path, **where, output="two", **{"training.workers": 2, "report.checkpoint": 4})
    same_curves(one, other, tolerance=0)


def test_the_averages_follow_the_weights(tmp_path, where):
    decay = 0.15
    train(tmp_path, **where, steps=4, **{"training.ema": decay, "report.checkpoint": 1, "report.keep": 9})
    folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    averages = [load_file(folder / "ema.safetensors") for folder in folders]
    assert set(averages[0]) == set(weights[0]) - {"empty_prompt"}
    moved = 0
    for name, average in averages[0].items():
        expected = average.double().numpy()
        for step in range(1, 4):
            d = min(decay, (1 + step) / (10 + step))  # 2/11, 3/12, 4/13: the decay is lower at first
            expected = d * expected + (1 - d) * weights[step][name].double().numpy()
        np.testing.assert_allclose(averages[3][name].double(), expected, rtol=1e-5, atol=1e-8)
        moved += not torch.equal(averages[3][name], weights[3][name])
    assert moved > 50


def test_what_is_written_out_loads(tmp_path, where):
    train(tmp_path, **where, steps=3)
    path = tmp_path / "run" / "unianimate.safetensors"
    unet = load_unet(path)
    assert unet.config.width == 32
    averages = load_file(tmp_path / "run" / "checkpoints" / "step-000003" / "ema.safetensors")
    state = unet.state_dict()
    assert all(torch.equal(state[name], average.half().float()) for name, average in averages.items())
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        assert file.get_tensor("out.2.bias").dtype == torch.float16
    assert metadata["steps"] == "3"
    assert metadata["format"] == "pt"
    assert json.loads(metadata["config"])["training"]["learning_rate"] == 1e-3
    assert str(tmp_path) not in metadata["config"]
    path.unlink()  # as if the run had been killed after its last checkpoint
    train(tmp_path, **where, steps=3)
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_unet(path).state_dict().items())
    # and it can be trained further
    more = {f"model.{name}": None for name in vars(config_of(tmp_path).model)} | {"model.checkpoint": str(path)}
    train(tmp_path, **where, **more, steps=2, output="more")
    assert load_unet(tmp_path / "more" / "unianimate.safetensors").config == unet.config


def test_what_a_run_cannot_change_is_refused_by_name(tmp_path, where, caplog):
    train(tmp_path, **where, steps=2)
    for key, value, shown in (
        ("seed", 8, "seed = 7, the configuration says 8"),
        ("model.width", 64, "model.width = 32, the configuration says 64"),
        ("data.height", 32, "data.height = 24, the configuration says 32"),
    ):
        with pytest.raises(InputError, match=shown):
            train(tmp_path, **where, **{key: value})
    caplog.set_level(logging.INFO, "unianimate_core")
    train(tmp_path, **where, steps=3, **{"training.learning_rate": 1e-4, "report.log": 3})
    assert "training.learning_rate was 0.001, is now 0.0001." in caplog.text
    assert max(rows_of(tmp_path / "run")) == 3
    train(tmp_path, **where, steps=4, **{"training.batch": 2})
    assert "A step had 1 samples, it now has 2: other samples follow." in caplog.text


def test_clip_can_be_neither_given_nor_taken_away_in_the_middle(tmp_path, where):
    train(tmp_path, **where, steps=2)
    with pytest.raises(InputError, match=r"trained with data.clip = none, the configuration says \.\./clip.bin: put"):
        train(tmp_path, **where, **{"data.clip": "clip.bin"})
    state = tmp_path / "run" / "checkpoints" / "step-000002" / "state.json"
    state.write_text(state.read_text().replace('"clip": null', '"clip": "../clip.bin"'))
    with pytest.raises(InputError, match=r"trained with data.clip = \.\./clip.bin, the configuration says none: put"):
        train(tmp_path, **where)


def test_another_checkpoint_of_other_sizes_to_begin_from_is_refused_by_name(tmp_path, where):
    train(tmp_path, **where, steps=2, output="one")
    train(tmp_path, **where, steps=2, output="two", **{"model.embedding_width": 16})
    own = {f"model.{name}": None for name in vars(config_of(tmp_path).model)} | {"model.checkpoint": "base.safetensors"}
    shutil.copy(tmp_path / "one" / "unianimate.safetensors", tmp_path / "base.safetensors")
    train(tmp_path, **where | own, steps=2)
    shutil.copy(tmp_path / "two" / "unianimate.safetensors", tmp_path / "base.safetensors")
    with pytest.raises(InputError, match=r"of other sizes than .*base.safetensors gives: put back"):
        train(tmp_path, **where | own, steps=3)


def test_other_betas_and_decay_count_after_going_on(tmp_path, where):
    train(tmp_path, **where, steps=2)
    trainer = Trainer(config_of(tmp_path, **where, **{"training.weight_decay": 0.5, "training.betas": [0.5, 0.75]}))
    assert trainer.step == 2
    assert {(group["weight_decay"], *group["betas"]) for group in trainer.optimizer.param_groups} == {(0.5, 0.5, 0.75)}
    before = torch.stack([p.detach().square().sum() for p in trainer.unet.parameters()])
    trainer.optimizer.param_groups[0]["lr"] = 1.0  # a step with no gradients left is decay alone, but for momentum
    for values in trainer.optimizer.state.values():
        values["exp_avg"].zero_()
    for parameter in trainer.unet.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    trainer.optimizer.step()
    after = torch.stack([p.detach().square().sum() for p in trainer.unet.parameters()])
    trained = torch.tensor([p.requires_grad for p in trainer.unet.parameters()])
    torch.testing.assert_close(after[trained], 0.25 * before[trained])  # weights x (1 - 1 x 0.5)
    assert torch.equal(after[~trained], before[~trained])


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
