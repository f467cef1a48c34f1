"""What is evaluated: poses and names of a data folder, old results, memory."""

import hashlib
import json
import os

import numpy as np
import pytest
import typer

from unianimate_core import InputError, assets, load_unet
from unianimate_core.animate import Settings
from unianimate_core.evaluation.clips import cut_clip, list_videos, read_clip
from unianimate_core.evaluation.command import evaluate
from unianimate_core.evaluation.sources import ModelSource, sha256
from unianimate_core.unet.memory import activation_bytes
from unianimate_core.video import VideoWriter

FRAMES, WIDTH, HEIGHT = 4, 80, 96
PICTURES = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
POINTS = np.random.default_rng(1).uniform(0.1, 0.9, (FRAMES, 18, 2))  # fractions of the picture


def write(path, frames=PICTURES):
    path.parent.mkdir(exist_ok=True)
    with VideoWriter(path, frames.shape[2], frames.shape[1], 25, lossless=True) as video:
        video.write(frames)


def pose(frame, width, height):
    """OpenPose's people of a frame, in pixels of a canvas."""
    body = np.column_stack([POINTS[frame] * (width, height), np.ones(18)])
    return {"people": [{"pose_keypoints_2d": body.ravel().tolist()}]}


@pytest.fixture
def data(tmp_path):
    """A video with a motion on a canvas of another shape, and in a subfolder one with OpenPose's files, without."""
    folder = tmp_path / "data"
    write(folder / "a.mkv")
    wide = [pose(frame, 320, 96) | {"canvas_width": 320, "canvas_height": 96} for frame in range(FRAMES)]
    (folder / "a.json").write_text(json.dumps(wide))
    write(folder / "more" / "a.MKV")
    (folder / "more" / "a").mkdir()
    for frame in range(FRAMES):
        (folder / "more" / "a" / f"a_{frame}_keypoints.json").write_text(json.dumps(pose(frame, WIDTH, HEIGHT)))
    return folder


@pytest.fixture
def run(tmp_path):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(evaluate)

    def call(data, *words, out="out"):
        app([str(data), "-o", str(tmp_path / out), *map(str, words)], standalone_mode=False)
        return json.loads((tmp_path / out / "metrics.json").read_text(encoding="utf-8"))

    return call


@pytest.mark.parametrize("name", ["a", "more/a"])
def test_poses_are_cropped_with_the_picture_whatever_their_canvas(data, name):
    truth = cut_clip(read_clip(list_videos(data)[name]), (40, 64), 1, 2, 3)
    assert truth.name == name
    assert (truth.track.width, truth.track.height) == (40, 64)
    # 60 of the 80 columns remain, 10 go on each side.
    expected = (POINTS[1:3] * (80, 96) - (10, 0)) / (60, 96)
    assert truth.track.body[:, :18] == pytest.approx(expected)
    assert truth.pose.shape == truth.frames.shape == (2, 64, 40, 3)


def test_the_digest_is_of_what_the_files_hold_now(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for content in (b"first", b"second"):
        one.write_bytes(content)
        two.write_bytes(b"more")
        assert sha256(one) == hashlib.sha256(content).hexdigest()
        assert sha256(one, two) == hashlib.sha256(content + b"more").hexdigest()


def test_results_of_subfolders_and_what_is_left_of_earlier_ones(tmp_path, data, run, monkeypatch):
    small = PICTURES[:2, :16, :16]
    for name in ("a.mkv", "more/a.MKV"):
        (data / name).unlink()
        write(data / name, small)
    for motion in (data / "a.json", *(data / "more" / "a").iterdir()):
        motion.unlink()
    (data / "more" / "a").rmdir()
    for name in ("a.mkv", "more/a.mkv"):
        write(tmp_path / "made" / name, small)
    given = ("--predictions", tmp_path / "made")
    assert [video["name"] for video in run(data, *given)["videos"]] == ["a", "more/a"]
    out = tmp_path / "out"
    shown = [out / "plots" / "more" / "a.png", out / "side_by_side" / "more" / "a.mp4"]
    assert all(path.exists() for path in shown)
    (out / "plots" / "own.png").write_bytes(b"not ours")

    (data / "more" / "a.MKV").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("unianimate_core.evaluation.evaluate.measure", lambda *_: [][0])
        with pytest.raises(IndexError):
            run(data, *given, "--overwrite")
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["own.png"], "nothing looks complete"
    assert [video["name"] for video in run(data, *given)["videos"]] == ["a"]
    assert not any(path.exists() for path in shown)


def test_results_and_predictions_among_the_true_videos_are_refused(data, run):
    before = sorted(os.listdir(data))
    for out in ("data", "data/out"):
        with pytest.raises(InputError, match=r"--output would be in .*data, all whose videos are the truth"):
            run(data, out=out)
    with pytest.raises(InputError, match=r"--predictions would be in .*data"):
        run(data, "--predictions", data / "more")
    assert sorted(os.listdir(data)) == before


def test_memory_is_asked_for_each_clip(tmp_path, data, monkeypatch):
    unet = load_unet(assets.SMALL_UNET)
    enough_for_3 = activation_bytes(unet.config, 3, 64 // 8, 40 // 8, next(unet.parameters()).dtype)
    monkeypatch.setattr("unianimate_core.unet.memory.available_bytes", lambda device: enough_for_3)
    source = ModelSource(unet, None, Settings(40, 64, frames=1), 0, tmp_path / "made", {})
    clip = read_clip(list_videos(data)["a"])
    source.check(clip, cut_clip(clip, (40, 64), 0, 3, 0))
    with pytest.raises(InputError, match=r"a\.mkv: 4 frames of 40 x 64 would take about .* GiB"):
        source.check(clip, cut_clip(clip, (40, 64), 0, None, 0))
