"""The configuration of a training run: what is read, and what is refused by name."""

import math
from pathlib import Path

import pytest
from graphs import ROOT
from training_run import SECTIONS, config_of, write_config

from unianimate_core import InputError
from unianimate_core.training.config_file import read_config


def test_values_are_read_as_written(tmp_path):
    changes = {"data.stride": 3, "training.betas": [0.5, 0.75], "training.clip_norm": 2, "dropout.pose": 0}
    config = config_of(tmp_path, **changes)
    assert config.output == tmp_path / "run"  # relative to the file, not to where the command runs
    assert config.data.folder == (tmp_path / "videos",)
    assert config.data.frames == (2, 3)
    assert config.data.stride == (3, 3)
    assert config.training.betas == (0.5, 0.75)
    assert isinstance(config.training.clip_norm, float)
    assert config.dropout.pose == 0
    assert config.dropout.image == 0.5
    assert config.model.multipliers == (1,)


@pytest.mark.parametrize("name", ["small.toml", "small_mamba.toml", "tiktok.toml"])
def test_the_repositorys_own_are_valid(name):
    config = read_config(ROOT / "configs" / name)
    assert config.output.parent == ROOT / "runs"


def test_what_goes_into_files_names_no_folder_of_this_machine(tmp_path):
    assert str(tmp_path) not in repr(config_of(tmp_path, **{"data.vae": "vae.pt"}).plain())


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data.widht": 16}, ["[data] widht: unknown", "did you mean width?"]),
        ({"stepz": 3}, ["stepz: unknown", "did you mean steps?"]),
        ({"zzz": 3}, ["zzz: unknown", "known are output, steps"]),
        ({"steps": None}, ["steps is missing", "a whole number"]),
        ({"data.vae": None}, ["[data] vae is missing", "a path"]),
        ({"steps": 1.5}, ["steps is 1.5", "a whole number"]),
        ({"steps": True}, ["steps is True", "a whole number"]),
        ({"steps": 0}, ["steps is 0", "1 or more"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"model.width": 48}, ["[model] width is 48", "multiple of 32"]),
        ({"model.temporal": "rnn"}, ["[model] temporal is 'rnn'", "one of transformer, mamba"]),
        ({"model.multipliers": [1, 0]}, ["[model] multipliers is (1, 0)"]),
        ({"model.multipliers": [1, "2"]}, ["[model] multipliers is [1, '2']", "a list of whole numbers"]),
        ({"model.attention_levels": [1]}, ["[model] attention_levels is [1]", "a list of true and false"]),
        ({"data.width": 20}, ["width is 20", "16 or 24"]),
        ({"data.frames": [3, 2]}, ["[data] frames is 3 to 2"]),
        ({"data.frames": [1, 2, 3]}, ["[data] frames is [1, 2, 3]", "a whole number, or a list of two"]),
        ({"data.fit": "squash"}, ["[data] fit is 'squash'", "crop, pad, stretch"]),
        ({"data.fit": "pad"}, ["[data] fit is 'pad'", "crop or stretch"]),
        ({"data.held_out": 1.0}, ["[data] held_out is 1.0", "0 to below 1"]),
        ({"data.folder": []}, ["[data] folder is empty"]),
        ({"data.vae": ""}, ["[data] vae is ''", "a path"]),
        ({"training.learning_rate": 0}, ["[training] learning_rate is 0"]),
        ({"training.learning_rate": "fast"}, ["[training] learning_rate is 'fast'", "a number"]),
        ({"training.batch": 0}, ["[training] batch is 0"]),
        ({"training.betas": [0.9]}, ["[training] betas is [0.9]", "a list of 2 numbers"]),
        ({"training.ema": 1.0}, ["[training] ema is 1.0"]),
        ({"training.precision": "fp8"}, ["[training] precision is 'fp8'", "no, fp16, bf16"]),
        ({"dropout.image": 1.1}, ["[dropout] image is 1.1", "0 to 1"]),
        ({"dropout.all_kept": 0.6, "dropout.all_dropped": 0.6}, ["all_dropped + all_kept", "at most 1"]),
        ({"report.keep": 0}, ["[report] keep is 0"]),
        ({"report.guidance": -1}, ["[report] guidance is -1"]),
        ({"report.tensorboard": 1}, ["[report] tensorboard is 1", "true or false"]),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, changes, parts):
    with pytest.raises(InputError) as caught:
        config_of(tmp_path, **changes)
    assert str(tmp_path / "run.toml") in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_missing_section(tmp_path):
    path = write_config(tmp_path)
    text = path.read_text()
    path.write_text(text[: text.index("[data]")] + text[text.index("[training]") :])
    with pytest.raises(InputError, match=r"the section \[data\] is missing"):
        read_config(path)
    path.write_text("data = 3\n" + text[: text.index("[data]")] + text[text.index("[training]") :])
    with pytest.raises(InputError, match=r"write a section \[data\]"):
        read_config(path)
    path.write_text(text[: text.index("[model]")] + "[model]\n" + text[text.index("[data]") :])
    with pytest.raises(InputError, match=r"\[model\] is empty: give checkpoint"):
        read_config(path)


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_config(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("steps = = 3")
    with pytest.raises(InputError, match=r"broken.toml is not TOML .*line 1"):
        read_config(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not TOML"):
        read_config(broken)


def test_infinite_numbers_are_refused(tmp_path):
    path = write_config(tmp_path)
    for bad in ("inf", "nan"):
        path.write_text(path.read_text().replace(f"learning_rate = {SECTIONS['training']['learning_rate']}", ""))
        path.write_text(path.read_text().replace("[training]", f"[training]\nlearning_rate = {bad}"))
        with pytest.raises(InputError, match=r"\[training\] learning_rate is (inf|nan)"):
            read_config(path)
        path = write_config(Path(tmp_path))
    assert math.isfinite(read_config(path).training.learning_rate)
