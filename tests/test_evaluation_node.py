"""The node Evaluate Video in a real ComfyUI, with or without scikit-image and matplotlib in it."""

import math

import numpy as np
import pytest
from comfy_server import PromptFailed
from graphs import HEIGHT, WIDTH, put_picture
from PIL import Image

OFFSET = 6


def prompt(comfy, made_frames=3):
    truth = np.random.default_rng(0).integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    names = [
        put_picture(comfy, f"{name}.png", Image.fromarray(picture))
        for name, picture in (("truth", truth), ("made", truth + np.uint8(OFFSET)))
    ]
    loads = {str(n): {"class_type": "LoadImage", "inputs": {"image": name}} for n, name in enumerate(names)}
    repeats = {
        str(n + 2): {"class_type": "RepeatImageBatch", "inputs": {"image": [str(n), 0], "amount": amount}}
        for n, amount in enumerate((3, made_frames))
    }
    evaluate = {"class_type": "UniAnimateEvaluate", "inputs": {"made": ["3", 0], "truth": ["2", 0]}}
    return loads | repeats | {"4": evaluate}


def test_a_video_is_measured_shown_and_handed_on(comfy):
    saves = {
        str(n): {"class_type": "SaveImage", "inputs": {"images": ["4", n - 4], "filename_prefix": f"evaluated {n}"}}
        for n in (5, 6)
    }
    text = {"7": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}}}
    run = comfy.queue(prompt(comfy) | saves | text)
    (table,) = run.outputs["4"]["text"]
    assert run.outputs["7"]["text"] == [table]
    titles, _, numbers = table.splitlines()[:3]
    found = dict(zip(*([cell.strip() for cell in line.split("|")[1:-1]] for line in (titles, numbers)), strict=True))
    assert found["L1 ↓"] == f"{OFFSET:.2f}"
    assert found["L1 (published) ↓"] == f"{OFFSET / (WIDTH * HEIGHT):.2E}"
    assert found["PSNR* ↑"] == f"{20 * math.log10(255 / OFFSET):.2f}"
    assert ("SSIM ↑" in found) != ("install scikit-image" in table)
    files = comfy.output_files(run)
    pictures = {path.name.partition("_")[0]: np.asarray(Image.open(path)) for path in files}
    assert len([path for path in files if path.name.startswith("evaluated 6")]) == 3
    beside = pictures["evaluated 6"].astype(int)
    assert beside.shape[1] == 3 * WIDTH
    made, truth, difference = np.split(beside[-HEIGHT:], 3, axis=1)
    assert (made - truth == OFFSET).all()
    assert (difference == 4 * OFFSET).all()
    assert pictures["evaluated 5"].std() > 1
    assert any(path.parent.name == "temp" for path in files), "the plot is shown on the node"


def test_videos_of_different_length_are_refused_with_both_numbers(comfy):
    with pytest.raises(PromptFailed, match="made has 2 frames, truth has 3"):
        comfy.queue(prompt(comfy, made_frames=2))


def test_every_input_and_output_is_explained(comfy):
    info = comfy.object_info("UniAnimateEvaluate")
    assert info["output_node"]
    assert all(spec[1]["tooltip"] for spec in info["input"]["required"].values())
    assert len(info["output_tooltips"]) == 3
    assert all(info["output_tooltips"])
