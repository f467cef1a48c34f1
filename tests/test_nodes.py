"""Our nodes in a real ComfyUI, on the CPU: they sample as the library does, and all of core works with them."""

import io
import re
import time

import numpy as np
import pytest
import torch
from comfy_server import ComfyServer, PromptInterrupted
from einops import rearrange
from graphs import (
    ASSETS,
    FRAMES,
    HEIGHT,
    IMAGE,
    ROOT,
    SMALL_VAE,
    STEPS,
    TOKENS,
    WIDTH,
    exact,
    graph,
    in_the_library,
    ksampler,
    latents,
    picture_of_working_size,
    put_picture,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from synthetic import GOLDEN, golden_weights, relative_error, synth

from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.diffusion import Schedule
from unianimate_core.unet import UNetConfig
from unianimate_core.unet.memory import activation_bytes


def test_all_nodes_are_there_and_described(comfy):
    info = comfy.object_info()
    ours = {name: node for name, node in info.items() if node["category"].startswith("UniAnimate/")}
    assert len(ours) == 32
    for name, node in ours.items():
        assert node["description"], name
        widgets = {**node["input"]["required"], **node["input"].get("optional", {})}
        silent = [widget for widget, spec in widgets.items() if not spec[1].get("tooltip") and spec[0] != "MODEL"]
        assert not silent, f"{name}: no tooltip on {silent}"


def test_the_pack_is_imported_in_under_a_second(comfy):
    seconds = re.search(r"([\d.]+) seconds: \S*custom_nodes/unianimate\s", comfy.log())
    assert seconds, comfy.log_tail()
    assert float(seconds[1]) < 1


@pytest.mark.parametrize(
    ("change", "library"),
    [
        ({}, {}),
        ({"cfg": 1.0}, {"guidance": 1.0}),
        ({"offset": 0.0}, {"offset": 0.0}),
        ({"noise_prior": 0}, {"prior": 0}),
        ({"noise_prior": 900}, {"prior": 900}),
        # Schedules that start below the prior, at it, and above it; fewer steps start lower.
        ({"steps": 4}, {"steps": 4}),
        ({"steps": 10}, {"steps": 10}),
        ({"steps": 10, "noise_prior": 0}, {"steps": 10, "prior": 0}),
        ({"steps": 20}, {"steps": 20}),
        ({"steps": 25}, {"steps": 25}),
    ],
    ids=lambda value: ", ".join(f"{k} {v}" for k, v in value.items()) or "as is",
)
def test_core_nodes_with_our_sigmas_and_noise_sample_as_the_library(comfy, change, library):
    conditioning = {k: v for k, v in change.items() if k == "noise_prior"}
    sampling = {k: v for k, v in change.items() if k != "noise_prior"}
    run = comfy.queue(exact(graph(**conditioning), **sampling))
    assert relative_error(latents(comfy, run), in_the_library(**library)) < 1e-3


def test_a_clipped_first_timestep_is_nearly_as_in_the_library(comfy):
    """27 steps begin at 999, 36 before 963: the library's first step goes to 962, a list of sigmas cannot."""
    run = comfy.queue(exact(graph(), steps=27))
    assert relative_error(latents(comfy, run), in_the_library(steps=27)) < 2e-3


def test_a_reference_that_must_be_fitted_is_fitted_as_in_the_library(comfy):
    picture = np.array(Image.open(ROOT / "samples" / "person.jpg").resize((200, 240)))
    prompt = graph()
    prompt["3"]["inputs"]["image"] = put_picture(comfy, "other size.png", Image.fromarray(picture))
    assert relative_error(latents(comfy, comfy.queue(exact(prompt))), in_the_library(picture=picture)) < 1e-3


@pytest.mark.parametrize("split", [1, 4])
def test_a_sampling_in_two_stages_is_one_sampling(comfy, split):
    """The second stage goes on with a noised latent: no prior may touch it."""
    whole = latents(comfy, comfy.queue(exact(graph(), steps=30)))
    prompt = exact(graph(), steps=30)
    prompt["17"] = {"class_type": "SplitSigmas", "inputs": {"sigmas": ["11", 0], "step": split}}
    prompt["18"] = {"class_type": "DisableNoise", "inputs": {}}
    first = prompt["13"]["inputs"] | {"sigmas": ["17", 0]}
    prompt["19"] = {"class_type": "SamplerCustomAdvanced", "inputs": first}
    prompt["13"]["inputs"] |= {"noise": ["18", 0], "sigmas": ["17", 1], "latent_image": ["19", 0]}
    assert relative_error(latents(comfy, comfy.queue(prompt)), whole) < 1e-4


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("ModelSamplingDiscrete", {"model": ["1", 0], "sampling": "lcm", "zsnr": False}),
        (
            "EasyCache",
            {"model": ["1", 0], "reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False},
        ),
    ],
)
def test_cores_model_patches_work(comfy, node, inputs):
    prompt = ksampler(graph(), "lcm" if node == "ModelSamplingDiscrete" else "euler", "simple", model="15")
    assert torch.isfinite(latents(comfy, comfy.queue(prompt | {"15": {"class_type": node, "inputs": inputs}}))).all()


def test_conditioning_of_an_area_works(comfy):
    area = {"conditioning": ["7", 0], "width": 64, "height": 64, "x": 0, "y": 32, "strength": 1.0}
    prompt = ksampler(graph()) | {"15": {"class_type": "ConditioningSetArea", "inputs": area}}
    prompt["13"]["inputs"]["positive"] = ["15", 0]
    assert torch.isfinite(latents(comfy, comfy.queue(prompt))).all()


def test_our_keypoints_are_drawn_by_cores_own_node(comfy):
    options = {"draw_body": True, "draw_head": True, "draw_hands": True, "draw_face": True, "draw_feet": True}
    sizes = {"stick_width": 4, "face_point_size": 3, "score_threshold": 0.3}
    draw = {"class_type": "SDPoseDrawKeypoints", "inputs": {"keypoints": ["4", 0]} | options | sizes}
    save = {"class_type": "SaveImage", "inputs": {"images": ["15", 0], "filename_prefix": "sdpose"}}
    run = comfy.queue({"4": graph()["4"], "15": draw, "16": save})
    assert np.array(Image.open(comfy.output_files(run)[0])).std() > 5


def test_the_memory_asked_for_is_the_networks_own_estimate_with_a_margin(comfy):
    run = comfy.queue({"1": graph()["1"], "2": {"class_type": "ProbeModels", "inputs": {"when": 0, "model": ["1", 0]}}})
    config = UNetConfig.from_tensors(golden_weights())
    for frames, needed in zip((1, 4, 16), run.outputs["2"]["needed"], strict=True):
        # Without fused attention, as here, core asks for 15 times what it asks for a byte of each value with it.
        estimate = activation_bytes(config, frames, 12, 8, torch.float16) / 2 / 0.01 * 0.15
        assert needed == pytest.approx(1.1 * estimate, rel=1e-3)


def test_text_picture_embedding_and_first_frame_enter_as_in_the_library(comfy):
    probe = {"class_type": "ProbeText", "inputs": {"file": str(comfy.base / "probe.safetensors")}}
    prompt = graph("bare.safetensors", text=["12", 0], clip_vision_output=["12", 1], first_frame=["3", 0])
    run = comfy.queue(exact(prompt | {"12": probe}))
    first_frame = rearrange(torch.from_numpy(picture_of_working_size()), "h w c -> 1 c h w") / 255
    assert relative_error(latents(comfy, run), in_the_library(image=IMAGE, first_frame=first_frame)) < 1e-3


def test_absent_conditions_are_absent_as_in_the_library(comfy):
    run = comfy.queue(exact(graph(reference_pose=None)))
    assert relative_error(latents(comfy, run), in_the_library(reference_pose=None)) < 1e-3


def test_the_stock_ddim_walks_the_same_way_and_ends_on_sigma_0(comfy):
    run = comfy.queue(ksampler(graph(), "ddim", "ddim_uniform"))
    assert relative_error(latents(comfy, run), in_the_library(offset=0.0, clean=True)) < 1e-3


def first_input(comfy: ComfyServer, **settings) -> tuple[torch.Tensor, float]:
    """What the network saw first, variance preserved, f 4 h w, and the ᾱ of the sampler's start."""
    watch = {"class_type": "ProbeWatch", "inputs": {"model": ["1", 0], "short_of_memory": False}}
    report = {"class_type": "ProbeReport", "inputs": {"model": ["15", 0], "after": ["13", 0]}}
    comfy.queue(ksampler(graph(), model="15", **settings) | {"15": watch, "16": report})
    seen = load_file(comfy.base / "seen.safetensors")
    sigma = seen["sigma"][0].double()
    return seen["x"][:FRAMES].double() / (1 + sigma**2).sqrt(), float(1 / (1 + sigma**2))


@pytest.mark.parametrize(
    ("sampler", "scheduler", "denoise"),
    [
        ("ddim", "ddim_uniform", 1.0),
        ("dpmpp_2m", "karras", 1.0),  # starts at the highest sigma, where core scales noise otherwise
        ("euler", "simple", 1.0),
        ("dpmpp_2m", "normal", 0.5),  # starts below the prior: nothing of ours
    ],
)
def test_every_sampler_starts_from_the_noise_prior(comfy, sampler, scheduler, denoise):
    start, alpha_start = first_input(comfy, sampler=sampler, scheduler=scheduler, denoise=denoise)
    alphas = load_file(GOLDEN / "sampling_small.safetensors")["alphas_cumprod"]
    alpha = max(float(alphas[949]), alpha_start)
    assert (alpha_start > float(alphas[949])) == (denoise < 1)
    picture = rearrange(torch.from_numpy(picture_of_working_size()), "h w c -> 1 c h w") / 255
    reference = load_autoencoder(ASSETS / "vae" / SMALL_VAE).encode(picture).double()
    noise = torch.randn((FRAMES, 4, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(3))
    expected = alpha**0.5 * reference + (1 - alpha) ** 0.5 * noise
    assert relative_error(start, expected) < 1e-4


@pytest.mark.parametrize("model", ["golden.pth", "golden.safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_checkpoint_formats_and_precisions(comfy, model, dtype):
    prompt = graph(model)
    prompt["1"]["inputs"]["weight_dtype"] = dtype
    result = latents(comfy, comfy.queue(exact(prompt)))
    assert relative_error(result, in_the_library()) < {"float16": 2e-2, "bfloat16": 1e-1}[dtype]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_weights_in_float8_are_the_files_rounded(comfy, monkeypatch, dtype):
    prompt = graph()
    prompt["1"]["inputs"]["weight_dtype"] = dtype
    result = latents(comfy, comfy.queue(exact(prompt)))
    assert relative_error(result, in_the_library()) > 5e-2, "they are not rounded"
    rounded = {name: tensor.to(getattr(torch, dtype)).float() for name, tensor in golden_weights().items()}
    monkeypatch.setattr("graphs.golden_weights", lambda: rounded)
    text = TOKENS.to(getattr(torch, dtype)).float()[None]
    assert relative_error(result, in_the_library(text=text)) < 2e-2


def test_guidance_is_the_same_with_and_without_memory_to_batch_it(comfy):
    results, forwards = [], []
    for short in (False, True):
        watch = {"class_type": "ProbeWatch", "inputs": {"model": ["1", 0], "short_of_memory": short}}
        report = {"class_type": "ProbeReport", "inputs": {"model": ["15", 0], "after": ["13", 0]}}
        run = comfy.queue(exact(graph(), model="15") | {"15": watch, "16": report})
        results.append(latents(comfy, run))
        forwards.append(run.outputs["16"]["forwards"])
        assert run.outputs["16"]["encodings"] == [1], "pose features are computed once per sampling"
    steps = len(Schedule().ddim_timesteps(STEPS))
    assert forwards == [[2 * FRAMES] * steps, [FRAMES] * 2 * steps]
    assert relative_error(results[1], results[0]) < 1e-5


def test_a_lora_finds_its_keys(comfy):
    loras = comfy.base / "models" / "loras"
    loras.mkdir(exist_ok=True)
    keys = {
        "lora_unet_input_blocks_1_0_in_layers_2": (64, 64 * 9),
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q": (128, 128),
    }
    tensors = {}
    for key, (out, into) in keys.items():
        shape = (4, into) if "attn" in key else (4, 64, 3, 3)
        tensors[f"{key}.lora_down.weight"] = synth(key + "down", shape) * 0.1
        tensors[f"{key}.lora_up.weight"] = synth(key + "up", (out, 4) if "attn" in key else (out, 4, 1, 1)) * 0.1
    save_file(tensors, loras / "test.safetensors")
    plain = latents(comfy, comfy.queue(exact(graph())))
    lora = {"model": ["1", 0], "lora_name": "test.safetensors", "strength_model": 1.0}
    prompt = exact(graph(), model="15") | {"15": {"class_type": "LoraLoaderModelOnly", "inputs": lora}}
    changed = latents(comfy, comfy.queue(prompt))
    assert relative_error(changed, plain) > 1e-3
    assert "NOT LOADED" not in comfy.log()
    assert "lora key not loaded" not in comfy.log()


def test_progress_and_previews_at_every_step(comfy):
    prompt = exact(graph())
    prompt["8"]["inputs"]["noise_seed"] = 77
    run = comfy.queue(prompt, preview_method="latent2rgb")
    steps = len(Schedule().ddim_timesteps(STEPS))
    assert (steps, steps) in run.progress["13"]
    assert len(run.previews) >= steps
    assert Image.open(io.BytesIO(run.previews[-1])).size[0] > 0


def test_queueing_again_loads_and_encodes_nothing_again(comfy):
    first = ksampler(graph(), seed=5)
    comfy.queue(first)
    assert not comfy.queue(first).executed
    again = comfy.queue(ksampler(graph(), seed=6))
    assert {"1", "5", "7"} <= set(again.cached)
    assert set(again.executed) == {"13", "14"}


def test_cancel_and_go_on(comfy):
    handle = comfy.start(ksampler(graph(), seed=8, steps=400))
    handle.wait_until(lambda run: len(run.progress.get("13", ())) >= 2)
    comfy.interrupt()
    with pytest.raises(PromptInterrupted):
        handle.wait()
    assert comfy.queue(ksampler(graph(), seed=9)).finished


def test_a_freed_model_is_let_go_and_loaded_again(comfy):
    def held(when):
        return comfy.queue({"1": {"class_type": "ProbeModels", "inputs": {"when": when}}}).outputs["1"]["models"]

    before = latents(comfy, comfy.queue(ksampler(graph(), seed=21)))
    assert "UniAnimateModel" in held(0)
    comfy.free()
    deadline = time.monotonic() + 30
    while "UniAnimateModel" in held(time.monotonic_ns() % 10**9):  # the server frees when it is idle
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert relative_error(latents(comfy, comfy.queue(ksampler(graph(), seed=21))), before) < 1e-5
