"""Detection, choice of person, alignment, cleaning, plots and files in a real ComfyUI, with stub networks."""

import csv
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from comfy_server import PromptFailed, PromptInterrupted, PromptRejected
from graphs import DANCE, DRIVING_FRAMES, GOLDEN, driving_pictures, put_picture, put_video
from onnx import numpy_helper
from PIL import Image

from unianimate_core import MotionTrack, PoseDetector, align_motion
from unianimate_core.pose import cleaning, follow_person, read_motion, read_pose_frames
from unianimate_core.pose.detection import people_to_frame
from unianimate_core.pose.export import read_csv
from unianimate_core.video import read_video

LOADER = {
    "class_type": "UniAnimatePoseDetectorLoader",
    "inputs": {"detector": "yolox_l.onnx", "keypoints": "dw-ll_ucoco_384.onnx", "provider": "CPU"},
}
DANCER = {
    "class_type": "UniAnimateLoadPose",
    "inputs": {"file": "example: dance.json", "canvas_width": 0, "canvas_height": 0},
}
CHOICE = {"choose": "largest", "index": 0, "x": 0.5, "y": 0.5, "lost_frames": 15}


def detect(**inputs):
    return {"class_type": "UniAnimateDetectPoses", "inputs": {"pose_detector": ["1", 0], "fps": 0.0} | inputs}


def save(node, format="one JSON file", **more):
    inputs = {"pose_keypoint": node, "filename_prefix": "poses/saved", "format": format} | more
    return {"class_type": "UniAnimateSavePose", "inputs": inputs}


def saved(run, node="9"):
    """The frames that a Save node wrote."""
    return read_pose_frames(run.outputs[node]["text"][0])


def test_video_and_pictures_give_what_the_library_detects(comfy):
    picture = driving_pictures(1)[0]
    video = {"class_type": "LoadVideo", "inputs": {"file": "dance.mp4"}}
    load = {"class_type": "LoadImage", "inputs": {"image": put_picture(comfy, "people.png", Image.fromarray(picture))}}
    twice = {"class_type": "RepeatImageBatch", "inputs": {"image": ["4", 0], "amount": 2}}
    prompt = {"1": LOADER, "2": video, "3": detect(video=["2", 0]), "4": load, "5": twice, "6": detect(images=["5", 0])}
    run = comfy.queue(prompt | {"9": save(["3", 0]), "10": save(["6", 0])})
    frames, _ = read_video(comfy.base / "input" / "dance.mp4")
    detector = PoseDetector(*(GOLDEN / "dwpose" / name for name in ("detector_stub.onnx", "pose_stub.onnx")))
    height, width = picture.shape[:2]
    for node, pictures in (("9", frames), ("10", [picture, picture])):
        expected = [people_to_frame(people, width, height) for people in detector.detect_frames(pictures)]
        for found, own in zip(saved(run, node), expected, strict=True):
            assert len(found["people"]) == len(own["people"]) > 1
            for person, other in zip(found["people"], own["people"], strict=True):
                for name, values in other.items():
                    assert np.allclose(person[name][: len(values)], values, atol=1e-3), name
    (report,) = run.outputs["3"]["text"]
    assert report == f"{DRIVING_FRAMES} frames, detected on CPUExecutionProvider."
    assert f"Detect Poses: {DRIVING_FRAMES} frames on CPUExecutionProvider" in comfy.log()
    assert run.progress["3"][-1] == (DRIVING_FRAMES, DRIVING_FRAMES)


def test_a_video_is_taken_at_another_rate(comfy):
    video = {"class_type": "LoadVideo", "inputs": {"file": "dance.mp4"}}
    run = comfy.queue({"1": LOADER, "2": video, "3": detect(video=["2", 0], fps=10.0), "9": save(["3", 0])})
    assert len(saved(run)) == DRIVING_FRAMES // 3


def test_the_chosen_person_is_the_librarys(comfy):
    video = {"class_type": "LoadVideo", "inputs": {"file": "dance.mp4"}}
    inputs = {"pose_keypoint": ["3", 0], **CHOICE, "choose": "nearest to point", "x": 0.9}
    choice = {"class_type": "UniAnimateChoosePerson", "inputs": inputs}
    prompt = {"1": LOADER, "2": video, "3": detect(video=["2", 0]), "4": choice}
    run = comfy.queue(prompt | {"8": save(["3", 0]), "9": save(["4", 0])})
    expected = follow_person(saved(run, "8"), "nearest to point", point=(0.9, 0.5))
    assert [frame["people"] for frame in saved(run)] == [frame["people"] for frame in expected]
    (preview,) = run.outputs["4"]["images"]
    with Image.open(comfy.base / "temp" / preview["filename"]) as animation:
        assert animation.n_frames == DRIVING_FRAMES


def test_nobody_in_a_picture_is_said(comfy):
    model = onnx.load(GOLDEN / "dwpose" / "pose_stub.onnx")
    for values in model.graph.initializer:
        if values.name in ("ox", "oy"):  # its last layers: now it is sure of no point
            values.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(values), values.name))
    onnx.save(model, comfy.base / "models" / "dwpose" / "unsure.onnx")
    put_picture(comfy, "black.png", Image.new("RGB", (64, 96)))
    loader = {**LOADER, "inputs": {**LOADER["inputs"], "keypoints": "unsure.onnx"}}
    picture = {"class_type": "LoadImage", "inputs": {"image": "black.png"}}
    with pytest.raises(PromptFailed, match="Nobody was found in any of 1 frames"):
        comfy.queue({"1": loader, "2": picture, "3": detect(images=["2", 0])})


def test_swapped_or_missing_files_are_named(comfy):
    swapped = {**LOADER, "inputs": {"detector": "dw-ll_ucoco_384.onnx", "keypoints": "yolox_l.onnx", "provider": "CPU"}}
    picture = {"class_type": "LoadImage", "inputs": {"image": "person.jpg"}}
    with pytest.raises(PromptFailed, match=r"dw-ll_ucoco_384\.onnx"):
        comfy.queue({"1": swapped, "2": picture, "3": detect(images=["2", 0])})
    gone = {**LOADER, "inputs": {**LOADER["inputs"], "detector": "gone.onnx"}}
    with pytest.raises(PromptRejected, match=r"gone\.onnx was not found: put yolox_l\.onnx"):
        comfy.queue({"1": gone, "2": picture, "3": detect(images=["2", 0])})
    with pytest.raises(PromptFailed, match="Connect images or a video"):
        comfy.queue({"1": LOADER, "3": detect()})


def test_files_in_the_newer_usual_place_are_listed_and_load(comfy):
    folder = comfy.base / "models" / "detection" / "dwpose"
    folder.mkdir(parents=True)
    for name, stub in {"yolox_m.onnx": "detector_stub.onnx", "dw-mm.onnx": "pose_stub.onnx"}.items():
        (folder / name).write_bytes((GOLDEN / "dwpose" / stub).read_bytes())
    inputs = comfy.object_info("UniAnimatePoseDetectorLoader")["input"]["required"]
    names = {"detector": "dwpose/yolox_m.onnx", "keypoints": "dwpose/dw-mm.onnx"}
    for name, file in names.items():
        assert file in str(inputs[name]).replace("\\\\", "/")
    loader = {**LOADER, "inputs": {**LOADER["inputs"], **names}}
    picture = {"class_type": "LoadImage", "inputs": {"image": "person.jpg"}}
    assert comfy.queue({"1": loader, "2": picture, "3": detect(images=["2", 0])}).outputs["3"]["text"]


def test_detection_can_be_cancelled(comfy):
    put_video(comfy, "long.mp4", 400)
    video = {"class_type": "LoadVideo", "inputs": {"file": "long.mp4"}}
    handle = comfy.start({"1": LOADER, "2": video, "3": detect(video=["2", 0])})
    handle.wait_until(lambda run: len(run.progress.get("3", [])) >= 3)
    comfy.interrupt()
    with pytest.raises(PromptInterrupted) as stopped:
        handle.wait()
    assert stopped.value.node_id == "3"


def edit(kind, **inputs):
    return {"class_type": f"UniAnimate{kind}", "inputs": {"pose_keypoint": ["2", 0], **inputs}}


EDITS = {
    "drop flicker": (edit("DropPoseFlicker", shortest=3), lambda t: cleaning.drop_flicker(t, 3)),
    "drop outliers": (
        edit("DropPoseOutliers", window=7, jump=0.06, stretch=1.8),
        lambda t: cleaning.drop_outliers(t, window=7, jump=0.06, stretch=1.8),
    ),
    "fill gaps": (
        edit("FillPoseGaps", longest=10, hold=2, method="linear", hold_last_pose=True),
        lambda t: cleaning.hold_pose(cleaning.fill_gaps(t, 10, hold=2, method="linear")),
    ),
    "smooth": (
        edit("SmoothPose", method="savitzky-golay", fps=30.0, min_cutoff=2.0, beta=15.0, window=9, order=3),
        lambda t: cleaning.smooth(t, "savitzky-golay", window=9, order=3),
    ),
    "trim": (edit("TrimPose", start=5, frames=20), lambda t: cleaning.trim(t, 5, 20)),
    "retime": (edit("RetimePose", from_fps=30.0, to_fps=24.0, method="pchip"), lambda t: cleaning.retime(t, 30, 24)),
    "loop": (edit("LoopPose", times=2, mode="repeat", blend=4), lambda t: cleaning.loop(t, 2, blend=4)),
    "mirror": (edit("MirrorPose"), cleaning.mirror),
    "transform": (
        edit("TransformPose", move_x=0.1, move_y=-0.1, scale=0.8, rotate=10.0),
        lambda t: cleaning.transform(t, move=(0.1, -0.1), scale=0.8, rotate=10),
    ),
    "scale limbs": (
        edit(
            "ScaleLimbs",
            **dict.fromkeys(
                ("torso", "shoulders", "upper_arms", "hands", "hips", "thighs", "shins", "feet", "neck", "head"), 1.0
            ),
            forearms=1.4,
        ),
        lambda t: cleaning.scale_limbs(t, {"forearms": 1.4}),
    ),
}


def test_each_edit_does_what_the_library_does_and_shows_before_and_after(comfy):
    dancer = read_motion(DANCE)
    nodes = {str(10 + n): node for n, (node, _) in enumerate(EDITS.values())}
    saves = {str(50 + n): save([str(10 + n), 0]) for n in range(len(EDITS))}
    run = comfy.queue({"2": DANCER} | nodes | saves)
    for n, (name, (_, function)) in enumerate(EDITS.items()):
        found = MotionTrack.from_pose_keypoints(saved(run, str(50 + n)))
        expected = function(dancer)
        assert np.allclose(found.body, expected.body, atol=1e-9, equal_nan=True), name
        assert np.allclose(found.hands, expected.hands, atol=1e-9, equal_nan=True), name
        (preview,) = run.outputs[str(10 + n)]["images"]
        assert preview["type"] == "temp"
        with Image.open(comfy.base / "temp" / preview["filename"]) as animation:
            canvas = animation.width / animation.height
            assert canvas == pytest.approx(2 * dancer.width / dancer.height, rel=0.05), name


def test_alignment_is_the_librarys(comfy):
    small = edit("TransformPose", move_x=0.1, move_y=0.0, scale=0.5, rotate=0.0)
    inputs = {"driving_pose": ["2", 0], "reference_pose": ["3", 0], "mode": "robust"}
    run = comfy.queue(
        {"2": DANCER, "3": small, "4": {"class_type": "UniAnimateAlignPose", "inputs": inputs}, "9": save(["4", 0])}
    )
    dancer = read_motion(DANCE)
    expected = align_motion(dancer, cleaning.transform(dancer, move=(0.1, 0), scale=0.5), "robust")
    found = MotionTrack.from_pose_keypoints(saved(run))
    assert np.allclose(found.body, expected.body, atol=1e-9, equal_nan=True)


def test_plots_are_pictures_and_tables_are_read_back(comfy, comfy_host):
    plots = {
        str(n): {"class_type": "UniAnimatePlotPose", "inputs": {"pose_keypoint": ["2", 0], "plot": plot, "person": 0}}
        for n, plot in enumerate(("skeletons", "tracks", "visibility"), 3)
    }
    run = comfy.queue(
        {"2": DANCER, "3": plots["3"], "9": save(["2", 0], "CSV table"), "10": save(["2", 0], "folder of JSON files")}
    )
    (sheet,) = run.outputs["3"]["images"]
    with Image.open(comfy.base / "temp" / sheet["filename"]) as picture:
        assert np.asarray(picture).std() > 5
    table, folder = (run.outputs[node]["text"][0] for node in ("9", "10"))
    dancer = read_motion(DANCE)
    assert np.allclose(read_csv(table).body, dancer.body, atol=1e-9, equal_nan=True)
    assert np.allclose(read_motion(folder).body, dancer.body, atol=1e-9, equal_nan=True)
    assert saved(run, "10")[0]["canvas_width"] == dancer.width
    curves = {"2": DANCER, "4": plots["4"], "5": plots["5"]}
    if subprocess.run([str(comfy_host.python), "-c", "import matplotlib"], capture_output=True).returncode:
        with pytest.raises(PromptFailed, match="matplotlib"):
            comfy.queue(curves)
    else:
        assert comfy.queue(curves).outputs.keys() >= {"4", "5"}


def test_a_table_is_saved_with_its_times_and_loaded_again(comfy):
    run = comfy.queue({"2": DANCER, "9": save(["2", 0], "CSV table", fps=12.5)})
    (table,) = (Path(path) for path in run.outputs["9"]["text"])
    with table.open(newline="") as file:
        times = {int(row["frame"]): float(row["time"]) for row in csv.DictReader(file)}
    assert times == {frame: frame / 12.5 for frame in range(280)}
    name = comfy.put_input("dance.csv", table)
    assert f"'{name}'" in str(comfy.object_info("UniAnimateLoadPose")["input"]["required"]["file"])
    loaded = {"class_type": "UniAnimateLoadPose", "inputs": {**DANCER["inputs"], "file": name}}
    run = comfy.queue({"3": loaded, "9": save(["3", 0])})
    found, dancer = MotionTrack.from_pose_keypoints(saved(run)), read_motion(DANCE)
    assert np.allclose(found.body, dancer.body, atol=1e-9, equal_nan=True)
    assert np.allclose(found.hands, dancer.hands, atol=1e-9, equal_nan=True)


def test_the_driving_pictures_move():
    pictures = driving_pictures(3)
    assert abs(np.diff(pictures.astype(int), axis=0)).mean() > 1
