"""`unianimate animate` over several segments: its formats, and how it goes on after whatever ended it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from synthetic import GOLDEN
from typer.testing import CliRunner
from videos import add_sound, moving_frames

from unianimate_core import InputError
from unianimate_core.cli import app
from unianimate_core.segment_folder import SegmentFolder
from unianimate_core.video import VideoWriter, read_video
from unianimate_core.video.film import Film

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES = GOLDEN.parent.parent / "samples"
FRAMES = 10


@pytest.fixture
def folder(tmp_path):
    motion = json.loads((SAMPLES / "dance.json").read_text())[:FRAMES]
    (tmp_path / "motion.json").write_text(json.dumps(motion))
    return tmp_path


def arguments(folder, output="out.mkv", *more, **options):
    """Three segments of 16 x 16: frames 0-3, 3-6, 6-9."""
    options = {"size": "16x16", "frames": "all", "segment": 4, "steps": 1, "codec": "ffv1"} | options
    files = ["--reference", SAMPLES / "person.jpg", "--motion", folder / "motion.json", "-o", folder / output]
    given = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None]
    return [str(part) for part in ("animate", *files, *(part for pair in given for part in pair), *more)]


def run(folder, *more, **options):
    return CliRunner().invoke(app, arguments(folder, *more, **options))


def made(folder, *more, **options):
    """The frames of a video that must succeed, and what was said."""
    result = run(folder, *more, **options)
    assert result.exit_code == 0, (result.output, result.exception)
    output = more[0] if more else "out.mkv"
    assert not (folder / f"{output}.partial").exists()
    return read_video(folder / output)[0], result.output


@pytest.fixture
def whole(folder):
    """The video of a run that nothing ended."""
    return made(folder, "whole.mkv")[0]


def left_by_an_end_in(folder, monkeypatch, segment, error):
    """A run that ends while a segment is written; what it said."""
    write = Film.add

    def failing(self, pixels):
        if f"{folder}/out.mkv.partial" in str(self.path) and len(list(self.path.parent.glob("*.mkv"))) == segment:
            raise error
        write(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Film, "add", failing)
        return run(folder)


def test_kill_9_and_the_same_command_again(folder, whole):
    command = [sys.executable, "-m", "unianimate_core.cli", *arguments(folder)]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    partial = folder / "out.mkv.partial"
    limit = time.monotonic() + 120
    while not (partial / "segment_00001.mkv").exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "out.mkv").exists()
    assert 2 <= len(list(partial.glob("segment_*.mkv"))) <= 3
    # what other moments leave: files under temporary names, latents without their film
    (partial / ".video.partial").write_bytes(b"half a video")
    (partial / ".unianimate-0123.partial").write_bytes(b"half a segment")
    (partial / "segment_00002.mkv").unlink(missing_ok=True)
    (partial / "segment_00002.safetensors").write_bytes(b"half of them")
    again, said = made(folder)
    assert "2 of 3 segments are there already" in said
    np.testing.assert_array_equal(again, whole)
    assert sorted(os.listdir(folder)) == ["motion.json", "out.mkv", "whole.mkv"]


@pytest.mark.parametrize("segment", [1, 2, 3])
def test_a_full_disk_keeps_what_is_done(folder, whole, monkeypatch, segment):
    """In the second and third segment, and in the video itself."""
    result = left_by_an_end_in(folder, monkeypatch, segment, OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(result.exception, InputError)
    assert "No space left on device" in str(result.exception)
    assert f"{segment} of 3 segments finished" in result.output
    assert "the same command goes on from there" in result.output
    films = sorted((folder / "out.mkv.partial").glob("segment_*.mkv"))
    for film, first in zip(films, (0, 3, 6), strict=False):  # what is written stays readable
        np.testing.assert_array_equal(read_video(film)[0], whole[first : first + 4])
    assert not list(folder.rglob(".*partial"))
    np.testing.assert_array_equal(made(folder)[0], whole)


def test_ctrl_c_says_how_to_go_on(folder, whole, monkeypatch):
    result = left_by_an_end_in(folder, monkeypatch, 1, KeyboardInterrupt())
    assert result.exit_code == 130
    assert "1 of 3 segments finished" in result.output
    assert not (folder / "out.mkv").exists()
    np.testing.assert_array_equal(made(folder)[0], whole)


def test_nothing_stays_of_a_run_without_a_whole_segment(folder, monkeypatch):
    left_by_an_end_in(folder, monkeypatch, 0, KeyboardInterrupt())
    assert os.listdir(folder) == ["motion.json"]


def test_segments_of_another_command_are_never_mixed_in(folder, whole, monkeypatch):
    left_by_an_end_in(folder, monkeypatch, 2, KeyboardInterrupt())
    before = sorted(os.listdir(folder / "out.mkv.partial"))
    for options, named in [({"seed": 1}, "seed"), ({"shared": 2}, "segments' shared"), ({"steps": 2}, "steps")]:
        result = run(folder, **options)
        assert isinstance(result.exception, InputError)
        assert f"made with other {named}:" in str(result.exception)
    motion = json.loads((folder / "motion.json").read_text())
    (folder / "motion.json").write_text(json.dumps(motion[::-1]))
    assert "made with other motion:" in str(run(folder).exception)
    (folder / "motion.json").write_text(json.dumps(motion))
    assert sorted(os.listdir(folder / "out.mkv.partial")) == before
    # how it is written may change: the segments are the same
    frames, said = made(folder, fps=10)
    assert "2 of 3 segments are there already" in said
    np.testing.assert_array_equal(frames, whole)

    left_by_an_end_in(folder, monkeypatch, 2, KeyboardInterrupt())  # refused: the video is there
    assert not (folder / "out.mkv.partial").exists()


def test_overwrite_begins_anew_where_the_command_is_another(folder, whole, monkeypatch):
    left_by_an_end_in(folder, monkeypatch, 2, KeyboardInterrupt())
    frames, said = made(folder, "out.mkv", "--overwrite", seed=3)
    assert "there already" not in said
    assert not np.array_equal(frames, whole)


def test_more_frames_than_a_clip_are_chained_unless_told(folder):
    motion = json.loads((folder / "motion.json").read_text())
    (folder / "motion.json").write_text(json.dumps(motion + motion[::-1]))
    frames, said = made(folder, segment=None)
    assert len(frames) == 20
    assert "20 frames are more than 16: making segments of 16" in said
    clip, said = made(folder, "clip.mkv", segment=0, noise_prior=939)
    assert len(clip) == 20
    assert "making segments" not in said
    np.testing.assert_array_equal(frames[0].shape, clip[0].shape)
    assert not np.array_equal(frames, clip)


def test_windows_over_the_whole_and_within_segments(folder):
    windows = {"window": 3, "overlap": 1, "window_weights": "pyramid"}
    sliding, _ = made(folder, "sliding.mkv", segment=None, **windows)
    both, _ = made(folder, "both.mkv", **windows)
    assert len(sliding) == len(both) == FRAMES
    assert not np.array_equal(sliding, both)


def test_options_against_drift_and_a_motion_shorter_than_a_segment(folder, whole):
    for change in ({"segment_prior": "start-frame"}, {"colours": "reference"}, {"shared": 2}, {"last": "pad"}):
        frames, _ = made(folder, "other.mkv", "--overwrite", **change)
        assert len(frames) == FRAMES
        assert np.array_equal(frames, whole) == (change == {"last": "pad"})  # 10 frames need no padding
    assert len(made(folder, "short.mkv", segment=32)[0]) == FRAMES


def test_pictures_and_sound(folder):
    video = np.tile(moving_frames(), (1, 1, 1, 1))[:FRAMES]
    with av.open(str(folder / "sound.mp4"), "w") as file:
        for packet in add_sound(file, FRAMES / 10):
            file.mux(packet)
    frames, _ = made(folder, "a.mp4", codec="h265", audio=folder / "sound.mp4", fps=10)
    assert len(frames) == len(video)
    with av.open(str(folder / "a.mp4")) as file:
        assert file.streams.audio[0].codec_context.name == "aac"
    pictures, _ = made(folder, "pictures", codec="png")
    exact, _ = made(folder, "exact.mkv")
    np.testing.assert_array_equal(pictures, exact)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frames": "some"}, "--frames is 'some': write a number, or all"),
        ({"segment": 1}, "segment length is 1"),
        ({"segment": -4}, "segment length is -4"),
        ({"shared": 4}, "4 shared frames in segments of 4"),
        ({"window": 3, "overlap": 3}, "window 3 with overlap 3"),
        ({"overlap": 1}, "there are no windows"),
        ({"codec": "prores"}, "must end in one of .mov"),
        ({"audio": "missing.wav"}, "no sound at missing.wav"),
        ({"audio": SAMPLES / "person.jpg"}, "has no sound"),
        ({"windows_at_once": 0, "window": 3}, "windows at once are 0"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(folder, monkeypatch, options, words):
    monkeypatch.setattr(SegmentFolder, "begin", pytest.fail)
    result = run(folder, **options)
    assert isinstance(result.exception, InputError), result.output
    assert words in str(result.exception)
    assert os.listdir(folder) == ["motion.json"]


def test_unknown_names_list_the_known_ones(folder):
    result = run(folder, codec="cinepak")
    assert result.exit_code == 2
    assert "prores" in result.output


def test_sound_of_another_length_is_told_before_any_work(folder):
    with av.open(str(folder / "sound.mp4"), "w") as file:
        for packet in add_sound(file, 3):
            file.mux(packet)
    result = run(folder, "a.mp4", codec=None, audio=folder / "sound.mp4")
    assert "the video 0.33 s" in str(result.exception)


def test_a_damaged_segment_is_told(folder, monkeypatch):
    left_by_an_end_in(folder, monkeypatch, 2, KeyboardInterrupt())
    film = folder / "out.mkv.partial" / "segment_00001.mkv"
    with VideoWriter(film, 16, 16, overwrite=True, lossless=True) as writer:
        writer.write(np.zeros((2, 16, 16, 3), np.uint8))
    result = run(folder)
    assert f"{film} is damaged: remove it" in str(result.exception)
    film.unlink()
    assert "1 of 3 segments are there already" in made(folder)[1]
