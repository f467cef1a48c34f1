"""`unianimate pose`, with stub networks, and `animate --align`."""

import json
import sys

import numpy as np
import pytest
import torch
from graphs import DANCE, GOLDEN, ROOT, driving_pictures
from PIL import Image
from typer.testing import CliRunner
from videos import encode

from unianimate_core import InputError, PoseDetector, align_motion, read_motion
from unianimate_core.cli import app
from unianimate_core.pose import follow_person, read_pose_frames, write_motion
from unianimate_core.pose.detection import people_to_frame
from unianimate_core.pose.plots import PLOTS
from unianimate_core.video import VideoWriter, read_video

pytestmark = pytest.mark.usefixtures("one_thread")
NETWORKS = [GOLDEN / "dwpose" / name for name in ("detector_stub.onnx", "pose_stub.onnx")]
FRAMES = 4


def pose(*arguments):
    options = ["--detector", NETWORKS[0], "--keypoints", NETWORKS[1]]
    result = CliRunner().invoke(app, ["pose", *map(str, [*arguments, *options])])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def make_video(path):
    pictures = driving_pictures(FRAMES)
    with VideoWriter(path, pictures.shape[2], pictures.shape[1], 30) as writer:
        writer.write(torch.from_numpy(pictures) / 255)
    return path


def detected(path):
    frames, _ = read_video(path)
    people = PoseDetector(*NETWORKS).detect_frames(frames)
    return [people_to_frame(some, frames.shape[2], frames.shape[1]) for some in people]


def test_the_largest_person_is_written_as_detected(tmp_path):
    video = make_video(tmp_path / "clip.mp4")
    output = pose(video, "--raw")
    assert "4 frames" in output
    assert "CPUExecutionProvider" in output
    expected = follow_person(detected(video))
    for found, own in zip(read_pose_frames(tmp_path / "clip.json"), expected, strict=True):
        assert [p["pose_keypoints_2d"] for p in found["people"]] == [p["pose_keypoints_2d"] for p in own["people"]]


def test_everyone_is_kept_where_asked(tmp_path):
    video = make_video(tmp_path / "clip.mp4")
    pose(video, "--raw", "--everyone", "-o", tmp_path / "all.json")
    most = max(len(frame["people"]) for frame in detected(video))
    assert {len(frame["people"]) for frame in read_pose_frames(tmp_path / "all.json")} >= {most}


def test_a_folder_gets_poses_beside_its_videos_and_a_broken_one_is_named(tmp_path):
    make_video(tmp_path / "a.mp4")
    make_video(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").write_bytes(b"not a video")
    write_motion(read_motion(DANCE)[:FRAMES], tmp_path / "b.json")
    before = (tmp_path / "b.json").read_bytes()
    output = pose(tmp_path)
    assert len(read_motion(tmp_path / "a.json")) == FRAMES
    assert (tmp_path / "b.json").read_bytes() == before
    assert "Skipped" in output
    assert "c.mp4" in output
    assert not (tmp_path / "c.json").exists()


def test_a_video_broken_in_the_middle_gives_the_poses_before_the_break(tmp_path):
    pictures = np.concatenate([driving_pictures(6)] * 2)
    path = encode(tmp_path / "clip.mp4", pictures, "libx264", "yuv420p", gop_size=3, bf=0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    output = pose(path, "--raw", "-o", tmp_path / "poses.json")
    frames = read_pose_frames(tmp_path / "poses.json")
    assert 4 <= len(frames) < 12
    assert f"{len(frames)} frames" in output
    assert f"after {len(frames)} frames" in " ".join(output.split())


def test_a_picture_has_a_pose_too(tmp_path):
    Image.fromarray(driving_pictures(1)[0]).save(tmp_path / "person.png")
    pose(tmp_path / "person.png", "--choose", "highest-score")
    assert len(read_motion(tmp_path / "person.json")) == 1


@pytest.mark.parametrize("kind", ["tracks", "visibility", "skeletons"])
def test_a_plot_of_the_motion_is_written(tmp_path, kind):
    video = make_video(tmp_path / "clip.mp4")
    pose(video, "--plot", tmp_path / "plot.png", "--plot-kind", kind)
    pose(video, "--raw", "-o", tmp_path / "raw.json")
    before, after = read_motion(tmp_path / "raw.json"), read_motion(tmp_path / "clip.json")
    with Image.open(tmp_path / "plot.png") as picture:
        assert np.array_equal(np.asarray(picture), PLOTS[kind](after, before=before))


def test_a_plot_that_cannot_be_made_is_told_before_detection(tmp_path, monkeypatch):
    monkeypatch.setattr("unianimate_core.pose.detection.PoseDetector", lambda *_: [][0])
    video = make_video(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match=r"plot\.jpg must end in one of \.png"):
        pose(video, "--plot", tmp_path / "plot.jpg")
    with pytest.raises(InputError, match="--plot is for one video"):
        pose(tmp_path, "--plot", tmp_path / "plot.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="install matplotlib"):
        pose(video, "--plot", tmp_path / "plot.png")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_mistakes_are_told_before_anything_is_loaded(tmp_path):
    video = make_video(tmp_path / "clip.mp4")
    (tmp_path / "clip.json").write_text("[]")
    with pytest.raises(InputError, match=r"clip\.json exists already"):
        pose(video)
    with pytest.raises(InputError, match="--point is 'middle'"):
        pose(video, "-o", tmp_path / "new.json", "--point", "middle")
    with pytest.raises(InputError, match="--output is for one video"):
        pose(tmp_path, "-o", tmp_path / "new.json")
    with pytest.raises(InputError, match=r"gone\.mp4"):
        pose(tmp_path / "gone.mp4")


def test_animate_aligns_the_motion_to_the_reference(tmp_path, monkeypatch):
    """What the work begins with is the aligned motion."""
    small = read_motion(DANCE)[0]
    frame = small.to_pose_keypoints()
    for values in (frame[0]["people"][0]["pose_keypoints_2d"], frame[0]["people"][0]["foot_keypoints_2d"]):
        values[0::3] = [0.5 * x for x in values[0::3]]
        values[1::3] = [0.5 * y for y in values[1::3]]
    (tmp_path / "standing.json").write_text(json.dumps(frame))

    class Reached(Exception):
        """The work begins, with these arguments."""

    def animation(*arguments):
        raise Reached(*arguments)

    monkeypatch.setattr("unianimate_core.animate.Animation", animation)
    arguments = ["--reference", ROOT / "samples" / "person.jpg", "--motion", DANCE, "--start", 3, "--frames", 5]
    options = ["--reference-pose", tmp_path / "standing.json", "--align", "paper", "-o", tmp_path / "out.mp4"]
    with pytest.raises(Reached) as reached:
        CliRunner().invoke(app, ["animate", *map(str, arguments + options)], catch_exceptions=False)
    _, _, _, track, settings, *_ = reached.value.args
    expected = align_motion(read_motion(DANCE)[3:8], read_motion(tmp_path / "standing.json"), "paper")
    assert np.array_equal(track.body, expected.body, equal_nan=True)
    assert (settings.start, settings.frames) == (0, 5)
    with pytest.raises(InputError, match="--align needs --reference-pose"):
        CliRunner().invoke(
            app, ["animate", *map(str, arguments), "--align", "robust", "-o", "x.mp4"], catch_exceptions=False
        )
