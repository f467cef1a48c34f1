"""What cannot work is said clearly, before any long work, in a real ComfyUI."""

import json
import re
import uuid

import pytest
import torch
from comfy_server import PromptFailed, PromptRejected
from graphs import DANCE, exact, graph, ksampler, latents, picture_of_working_size, put_picture
from PIL import Image
from synthetic import relative_error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "vae.safetensors"}, "not a UniAnimate model: it looks like a TAESD autoencoder"),
        ({"model": "broken.safetensors"}, "truncated or damaged"),
        ({"model": "bare.safetensors"}, "no text tokens"),
        (
            {"length": 300},
            "driving_pose has 280 frames, but start_frame 2 and length 300 need 302: lower length to 278",
        ),
        ({"start_frame": 280, "length": 1}, "lower start_frame below 280"),
        ({"width": 100}, "width is 100: give a positive multiple of 8, for example 96 or 104"),
        (
            {"length": 200, "start_frame": 0, "width": 16384, "height": 16384},
            "the pose pictures of 200 frames of 16384 x 16384 would take about 600.0 GiB",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_work_is_said_clearly(comfy, change, message):
    change = dict(change)
    model = change.pop("model", "golden.safetensors")
    with pytest.raises(PromptFailed, match=re.escape(message)):
        comfy.queue(ksampler(graph(model, **change)))


def test_pictures_larger_than_memory_are_refused_before_they_are_drawn(comfy):
    prompt = graph()
    prompt["5"]["inputs"] |= {"width": 16384, "height": 16384}
    with pytest.raises(PromptFailed, match=r"280 frames of 16384 x 16384 would take about 840.0 GiB; .* are free"):
        comfy.queue(ksampler(prompt))


@pytest.mark.parametrize("file", ["../secret.json", "/etc/passwd", "..", "a/../../secret.json"])
def test_motions_are_read_from_the_input_folder_alone(comfy, file):
    (comfy.base / "secret.json").write_text("[]")
    prompt = ksampler(graph())
    prompt["4"]["inputs"]["file"] = file
    with pytest.raises(PromptRejected, match="not in ComfyUI's input folder"):
        comfy.queue(prompt)


def test_half_a_canvas_is_refused(comfy):
    prompt = graph()
    prompt["4"]["inputs"]["canvas_width"] = 512
    with pytest.raises(PromptFailed, match="canvas_width is 512 and canvas_height 0: give both"):
        comfy.queue(ksampler(prompt))


def test_a_latent_of_another_length_is_refused_before_sampling(comfy):
    prompt = ksampler(graph())
    prompt["12"] = {"class_type": "LatentFromBatch", "inputs": {"samples": ["7", 2], "batch_index": 0, "length": 3}}
    prompt["13"]["inputs"]["latent_image"] = ["12", 0]
    with pytest.raises(PromptFailed, match="'pose' has shape 1 5 3 96 64, expected 1 3 3 96 64"):
        comfy.queue(prompt)


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [("7", "width", 0), ("7", "height", -8), ("7", "length", 0), ("7", "noise_prior", 1000), ("4", "file", "no.json")],
)
def test_values_out_of_range_are_rejected_when_queued(comfy, node, name, value):
    prompt = ksampler(graph())
    prompt[node]["inputs"][name] = value
    with pytest.raises(PromptRejected):
        comfy.queue(prompt)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "frames|empty|no "), ("{nonsense", "JSON"), ('[{"people": []}]', "canvas"), ("", "empty")],
)
def test_motion_files_that_are_none(comfy, content, message):
    comfy.put_input("bad.json", content.encode())
    prompt = graph()
    prompt["4"]["inputs"]["file"] = "bad.json"
    with pytest.raises(PromptFailed, match=message):
        comfy.queue(ksampler(prompt, seed=hash(content) % 1000))


def test_a_motion_without_people_is_refused_and_one_with_gaps_is_drawn(comfy):
    frames = json.loads(DANCE.read_text())[:6]
    prompt = graph(start_frame=0)
    for frame in frames[1:4]:
        frame["people"] = []
    comfy.put_input("gaps.json", json.dumps(frames).encode())
    prompt["4"]["inputs"]["file"] = "gaps.json"
    assert comfy.queue(ksampler(prompt)).finished
    for frame in frames:
        frame["people"] = []
    comfy.put_input("nobody.json", json.dumps(frames).encode())
    prompt["4"]["inputs"]["file"] = "nobody.json"
    with pytest.raises(PromptFailed, match=r"[Nn]o person"):
        comfy.queue(ksampler(prompt))


def sampled(comfy, picture: Image.Image) -> torch.Tensor:
    prompt = graph()
    prompt["3"]["inputs"]["image"] = put_picture(comfy, f"{uuid.uuid4().hex}.png", picture)
    return latents(comfy, comfy.queue(exact(prompt, steps=4)))


@pytest.mark.parametrize("mode", ["RGBA", "P", "1 x 1"])
def test_pictures_of_every_kind_equal_their_rgb(comfy, mode):
    picture = Image.fromarray(picture_of_working_size())
    odd = picture.crop((30, 40, 31, 41)) if mode == "1 x 1" else picture.convert(mode)
    if mode == "RGBA":
        odd.putalpha(Image.fromarray(picture_of_working_size()[..., 0]))
    plain = (picture if mode == "RGBA" else odd.convert("RGB")).resize(odd.size if mode != "1 x 1" else (64, 96))
    assert relative_error(sampled(comfy, odd), sampled(comfy, plain)) < 1e-5
