"""Tiny videos, tiny networks and short runs for the tests of training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import ASSETS, ROOT, SMALL_VAE

from unianimate_core.pose import MotionTrack, write_motion
from unianimate_core.training.config_file import read_config
from unianimate_core.training.loop import Trainer
from unianimate_core.video import VideoWriter

WIDTH, HEIGHT = 16, 24
SECTIONS = {
    "": {"output": "run", "steps": 6, "seed": 7},
    "model": {
        "width": 32,
        "multipliers": [1],
        "residual_blocks": 1,
        "attention_levels": [True],
        "first_temporal_width": 32,
        "context_width": 32,
        "image_width": 32,
        "embedding_width": 8,
        "prompt_tokens": 3,
    },
    "data": {
        "folder": "videos",
        "vae": str(ASSETS / "vae" / SMALL_VAE),
        "cache": "cache",
        "width": WIDTH,
        "height": HEIGHT,
        "frames": [2, 3],
    },
    "training": {"learning_rate": 1e-3},
    "report": {"log": 1, "checkpoint": 2, "samples": 0},
}


@pytest.fixture(scope="module", autouse=True)
def on_one_core(one_thread):
    """On the CPU, whatever the machine has: curves are compared closely, and networks are tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        yield


def make_video(path, frames=6, width=32, height=48, seed=0):
    """A video of a square that follows a motion's first joint, its motion beside it as JSON."""
    random = np.random.default_rng(seed)
    body = random.uniform(0.3, 0.7, (1, 20, 2)) + np.cumsum(random.normal(0, 0.01, (frames, 20, 2)), axis=0)
    pictures = np.empty((frames, height, width, 3), np.uint8)
    pictures[:] = random.integers(0, 100, 3)
    for picture, (x, y) in zip(pictures, body[:, 0] * (width, height), strict=True):
        picture[round(y) - 4 : round(y) + 4, round(x) - 4 : round(x) + 4] = 255
    with VideoWriter(path, width, height) as video:
        video.write(pictures)
    write_motion(MotionTrack(body, width=width, height=height), path.with_suffix(".json"))


def make_videos(folder, count=3, **kwargs):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        make_video(folder / f"clip{number}.mp4", seed=number, **kwargs)


def write_config(folder, name="run.toml", **changes):
    """A run's TOML file; changes by "section.key", or "key" for the top."""
    sections = {section: dict(values) for section, values in SECTIONS.items()}
    for key, value in changes.items():
        section, _, name_in_section = key.rpartition(".")
        sections.setdefault(section, {})[name_in_section] = value
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]"] if section else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    path = Path(folder) / name
    path.write_text("\n".join(lines) + "\n")
    return path


def config_of(folder, **changes):
    return read_config(write_config(folder, **changes))


def train(folder, **changes):
    """A run in this process; its rows of the log by step."""
    config = config_of(folder, **changes)
    Trainer(config).run()
    return rows_of(config.output)


def rows_of(output):
    return {row["step"]: row for row in map(json.loads, (output / "log.jsonl").read_text().splitlines())}


def command(path, *launcher):
    """The command as a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    module = ["-m", "unianimate_core.cli", "train", str(path)]
    return subprocess.Popen(
        [sys.executable, *launcher, *module], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )


def curve(rows, name="loss"):
    return [rows[step][name] for step in sorted(rows)]


def same_curves(one, other, tolerance=1e-6):
    assert sorted(one) == sorted(other)
    for name in ("loss", "smoothed", "gradient_norm", "learning_rate"):
        np.testing.assert_allclose(curve(one, name), curve(other, name), rtol=tolerance, atol=tolerance)
