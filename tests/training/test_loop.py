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
from safetensors.torch import load_file, save_file
from training_run import (
    command,
    config_of,
    curve,
    rows_of,
    same_curves,
    train,
    write_config,
)

from unianimate_core import InputError, load_unet
from unianimate_core.training.checkpoints import Checkpoints
from unianimate_core.training.loop import Trainer


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
