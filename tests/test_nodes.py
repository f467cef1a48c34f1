"""Our nodes in a real ComfyUI, on the CPU, with small synthetic weights."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_host import Host
from comfy_server import ComfyServer, PromptFailed, PromptInterrupted, PromptRejected, Run
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file, save_file
from synthetic import GOLDEN, golden_weights, relative_error, synth

from unianimate_core import Conditions, draw_motion, load_unet, noise_prior, offset_noise, sample
from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.diffusion import Schedule
from unianimate_core.pose import MotionTrack
from unianimate_core.video import read_video

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "unianimate_core" / "assets"
DANCE = ROOT / "examples" / "dance.json"
SMALL_VAE = "unianimate_small_vae.safetensors"
WIDTH, HEIGHT, FRAMES, STEPS = 64, 96, 5, 6
LATENT_SCALE = 0.18215  # of Stable Diffusion 1.5's latent format
TOKENS = synth("zero_y", (77, 1024))
IMAGE = synth("image", (1, 1024))

PROBE = '''
"""Nodes that look inside a sampling, for the tests."""
import torch
from comfy.patcher_extension import WrappersMP
import folder_paths
from safetensors.torch import load_file, save_file

class Text:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("CONDITIONING", "CLIP_VISION_OUTPUT")
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": ("STRING", {})}}
    def run(self, file):
        tensors = load_file(file)
        vision = type("Output", (), {"image_embeds": tensors["image"]})()
        return ([[tensors["text"], {}]], vision)

class Watch:
    """Notes the batch size of every forward pass and every encoding of a pose."""
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("MODEL",)
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "short_of_memory": ("BOOLEAN", {})}}
    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")  # look anew in every prompt
    def run(self, model, short_of_memory):
        model = model.clone()
        model.model.memory_usage_factor = 1e12 if short_of_memory else 1.0
        network = model.model.diffusion_model
        network.forwards, network.encodings = [], 0
        def note(executor, x, t, *args, **kwargs):
            if not network.forwards:
                save_file({"x": x.clone(), "sigma": t.clone()}, folder_paths.base_path + "/seen.safetensors")
            network.forwards.append(x.shape[0])
            return executor(x, t, *args, **kwargs)
        def encode(pose, like):
            network.encodings += 1
            return type(network).encode_pose(network, pose, like)
        network.encode_pose = encode
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "probe", note)
        return (model,)

class Report:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "run", (), True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "after": ("LATENT",)}}
    def run(self, model, after):
        network = model.model.diffusion_model
        return {"ui": {"forwards": network.forwards, "encodings": [network.encodings]}}

NODE_CLASS_MAPPINGS = {"ProbeText": Text, "ProbeWatch": Watch, "ProbeReport": Report}
'''


def _picture() -> np.ndarray:
    """A reference picture of exactly the working size, so that nothing is resized: H W 3 uint8."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack((x * 255 // WIDTH, y * 255 // HEIGHT, (x + y) % 256), axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def server(comfy_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("comfyui")
    models = base / "models" / "diffusion_models"
    models.mkdir(parents=True)
    weights = golden_weights()
    save_file(weights, models / "bare.safetensors")
    save_file(weights | {"empty_prompt": TOKENS}, models / "golden.safetensors")
    torch.save({"state_dict": weights | {"empty_prompt": TOKENS}, "step": 1}, models / "golden.pth")
    (models / "broken.safetensors").write_bytes((models / "bare.safetensors").read_bytes()[:1_000_000])
    (models / "vae.safetensors").write_bytes((ASSETS / "vae" / SMALL_VAE).read_bytes())
    save_file({"text": TOKENS[None], "image": IMAGE}, base / "probe.safetensors")
    probe = base / "custom_nodes" / "probe"
    probe.mkdir(parents=True)
    (probe / "__init__.py").write_text(PROBE)
    with ComfyServer(comfy_host, base) as server:
        png = io.BytesIO()
        Image.fromarray(_picture()).save(png, "PNG")
        server.put_input("reference.png", png.getvalue())
        server.put_input("person.jpg", ROOT / "examples" / "person.jpg")
        yield server


def graph(model="golden.safetensors", **conditioning) -> dict:
    """Loaders, drawing and conditioning; a sampler takes 1 (model) and 7 (positive, negative, latent)."""
    inputs = {"width": WIDTH, "height": HEIGHT, "length": FRAMES, "start_frame": 2, "noise_prior": 949}
    links = {"vae": ["2", 0], "driving_pose": ["5", 0], "reference_image": ["3", 0], "reference_pose": ["6", 0]}
    wired = {k: v for k, v in (inputs | links | conditioning).items() if v is not None}
    return {
        "1": {"class_type": "UniAnimateModelLoader", "inputs": {"model_name": model, "weight_dtype": "default"}},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": SMALL_VAE}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "reference.png"}},
        "4": {
            "class_type": "UniAnimateLoadPose",
            "inputs": {"file": "example: dance.json", "canvas_width": 0, "canvas_height": 0},
        },
        "5": {
            "class_type": "UniAnimateDrawPose",
            "inputs": {"pose_keypoint": ["4", 0], "width": WIDTH, "height": HEIGHT, "fit": "stretch", "person": 0},
        },
        "6": {"class_type": "ImageFromBatch", "inputs": {"image": ["5", 0], "batch_index": 0, "length": 1}},
        "7": {"class_type": "UniAnimateConditioning", "inputs": wired},
    }


def ksampler(prompt: dict, sampler="ddim", scheduler="ddim_uniform", model="1", **inputs) -> dict:
    settings = {"seed": 3, "steps": STEPS, "cfg": 2.5, "denoise": 1.0}
    links = {"model": [model, 0], "positive": ["7", 0], "negative": ["7", 1], "latent_image": ["7", 2]}
    names = {"sampler_name": sampler, "scheduler": scheduler}
    return prompt | {"13": {"class_type": "KSampler", "inputs": settings | links | names | inputs}} | SAVE_LATENT


SAVE_LATENT = {"14": {"class_type": "SaveLatent", "inputs": {"samples": ["13", 0], "filename_prefix": "latent"}}}


def exact(prompt: dict, model="1", cfg=2.5, offset=0.1) -> dict:
    guider = {"model": [model, 0], "positive": ["7", 0], "negative": ["7", 1], "cfg": cfg}
    sampler = {"noise": ["8", 0], "guider": ["9", 0], "sampler": ["10", 0], "sigmas": ["11", 0]}
    return (
        prompt
        | {
            "8": {"class_type": "UniAnimateNoise", "inputs": {"noise_seed": 3, "offset": offset}},
            "9": {"class_type": "CFGGuider", "inputs": guider},
            "10": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
            "11": {
                "class_type": "UniAnimateScheduler",
                "inputs": {"model": [model, 0], "steps": STEPS, "denoise": 1.0},
            },
            "13": {"class_type": "SamplerCustomAdvanced", "inputs": sampler | {"latent_image": ["7", 2]}},
        }
        | SAVE_LATENT
    )


def latents(server: ComfyServer, run: Run) -> torch.Tensor:
    """What SaveLatent wrote, as the network scales it: f 4 h w."""
    (file,) = (path for path in server.output_files(run) if path.suffix == ".latent")
    return load_file(file)["latent_tensor"] * LATENT_SCALE


def in_the_library(guidance=2.5, prior=949, offset=0.1, clean=False, **more) -> torch.Tensor:
    """The same video by the library's own sampling: f 4 h w; ``clean`` for the last estimate of x0, at sigma 0."""
    track = MotionTrack.from_pose_keypoints(json.loads(DANCE.read_text()))
    drawn = rearrange(torch.from_numpy(draw_motion(track, WIDTH, HEIGHT)), "f h w c -> f c h w") / 255
    picture = rearrange(torch.from_numpy(_picture()), "h w c -> 1 c h w") / 255
    autoencoder = load_autoencoder(ASSETS / "vae" / SMALL_VAE)
    reference = autoencoder.encode(picture)
    conditions = Conditions(
        text=TOKENS[None], pose=drawn[None, 2 : 2 + FRAMES], reference=reference, reference_pose=drawn[:1]
    )
    conditions = Conditions(**{**vars(conditions), **more})
    generator = torch.Generator().manual_seed(3)
    noise = offset_noise((1, 4, FRAMES, HEIGHT // 8, WIDTH // 8), generator, offset)
    x_T = noise_prior(reference, noise, prior) if prior else noise
    estimates = []
    x = sample(
        load_unet(golden_weights()), x_T, conditions, STEPS, guidance, callback=lambda *s: estimates.append(s[2])
    )
    return rearrange(estimates[-1] if clean else x, "1 c f h w -> f c h w")


# What the pack brings to the host


def test_all_nodes_are_there_and_described(server):
    info = server.object_info()
    ours = {name: node for name, node in info.items() if node["category"].startswith("UniAnimate/")}
    assert len(ours) == 6
    for name, node in ours.items():
        assert node["description"], name
        widgets = {**node["input"]["required"], **node["input"].get("optional", {})}
        silent = [widget for widget, spec in widgets.items() if not spec[1].get("tooltip") and spec[0] != "MODEL"]
        assert not silent, f"{name}: no tooltip on {silent}"


def test_the_pack_is_imported_in_under_a_second(server):
    seconds = re.search(r"([\d.]+) seconds: \S*custom_nodes/unianimate\s", server.log())
    assert seconds, server.log_tail()
    assert float(seconds[1]) < 1


# Sampling


@pytest.mark.parametrize(
    ("change", "library"),
    [
        ({}, {}),
        ({"cfg": 1.0}, {"guidance": 1.0}),
        ({"offset": 0.0}, {"offset": 0.0}),
        ({"noise_prior": 0}, {"prior": 0}),
        ({"noise_prior": 900}, {"prior": 900}),
    ],
    ids=lambda value: next((f"{k} {v}" for k, v in value.items()), "as is"),
)
def test_core_nodes_with_our_sigmas_and_noise_sample_as_the_library(server, change, library):
    conditioning = {k: v for k, v in change.items() if k == "noise_prior"}
    sampling = {k: v for k, v in change.items() if k != "noise_prior"}
    run = server.queue(exact(graph(**conditioning), **sampling))
    assert relative_error(latents(server, run), in_the_library(**library)) < 1e-3


def test_text_picture_embedding_and_first_frame_enter_as_in_the_library(server):
    probe = {"class_type": "ProbeText", "inputs": {"file": str(server.base / "probe.safetensors")}}
    prompt = graph("bare.safetensors", text=["12", 0], clip_vision_output=["12", 1], first_frame=["3", 0])
    run = server.queue(exact(prompt | {"12": probe}))
    first_frame = rearrange(torch.from_numpy(_picture()), "h w c -> 1 c h w") / 255
    assert relative_error(latents(server, run), in_the_library(image=IMAGE, first_frame=first_frame)) < 1e-3


def test_absent_conditions_are_absent_as_in_the_library(server):
    run = server.queue(exact(graph(reference_pose=None)))
    assert relative_error(latents(server, run), in_the_library(reference_pose=None)) < 1e-3


def test_the_stock_ddim_walks_the_same_way_and_ends_on_sigma_0(server):
    run = server.queue(ksampler(graph(), "ddim", "ddim_uniform"))
    assert relative_error(latents(server, run), in_the_library(offset=0.0, clean=True)) < 1e-3


def first_input(server: ComfyServer, **settings) -> tuple[torch.Tensor, float]:
    """What the network saw first, variance preserved, f 4 h w, and the ᾱ of the sampler's start."""
    watch = {"class_type": "ProbeWatch", "inputs": {"model": ["1", 0], "short_of_memory": False}}
    report = {"class_type": "ProbeReport", "inputs": {"model": ["15", 0], "after": ["13", 0]}}
    server.queue(ksampler(graph(), model="15", **settings) | {"15": watch, "16": report})
    seen = load_file(server.base / "seen.safetensors")
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
def test_every_sampler_starts_from_the_noise_prior(server, sampler, scheduler, denoise):
    start, alpha_start = first_input(server, sampler=sampler, scheduler=scheduler, denoise=denoise)
    alphas = load_file(GOLDEN / "sampling_small.safetensors")["alphas_cumprod"]
    alpha = max(float(alphas[949]), alpha_start)
    assert (alpha_start > float(alphas[949])) == (denoise < 1)
    picture = rearrange(torch.from_numpy(_picture()), "h w c -> 1 c h w") / 255
    reference = load_autoencoder(ASSETS / "vae" / SMALL_VAE).encode(picture).double()
    noise = torch.randn((FRAMES, 4, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(3))
    expected = alpha**0.5 * reference + (1 - alpha) ** 0.5 * noise
    assert relative_error(start, expected) < 1e-4


@pytest.mark.parametrize("model", ["golden.pth", "golden.safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_checkpoint_formats_and_precisions(server, model, dtype):
    prompt = graph(model)
    prompt["1"]["inputs"]["weight_dtype"] = dtype
    result = latents(server, server.queue(exact(prompt)))
    assert relative_error(result, in_the_library()) < {"float16": 2e-2, "bfloat16": 1e-1}[dtype]


def test_guidance_is_the_same_with_and_without_memory_to_batch_it(server):
    results, forwards = [], []
    for short in (False, True):
        watch = {"class_type": "ProbeWatch", "inputs": {"model": ["1", 0], "short_of_memory": short}}
        report = {"class_type": "ProbeReport", "inputs": {"model": ["15", 0], "after": ["13", 0]}}
        run = server.queue(exact(graph(), model="15") | {"15": watch, "16": report})
        results.append(latents(server, run))
        forwards.append(run.outputs["16"]["forwards"])
        assert run.outputs["16"]["encodings"] == [1], "pose features are computed once per sampling"
    steps = len(Schedule().ddim_timesteps(STEPS))
    assert forwards == [[2 * FRAMES] * steps, [FRAMES] * 2 * steps]
    assert relative_error(results[1], results[0]) < 1e-5


def test_a_lora_finds_its_keys(server):
    loras = server.base / "models" / "loras"
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
    plain = latents(server, server.queue(exact(graph())))
    lora = {"model": ["1", 0], "lora_name": "test.safetensors", "strength_model": 1.0}
    prompt = exact(graph(), model="15") | {"15": {"class_type": "LoraLoaderModelOnly", "inputs": lora}}
    changed = latents(server, server.queue(prompt))
    assert relative_error(changed, plain) > 1e-3
    assert "NOT LOADED" not in server.log()
    assert "lora key not loaded" not in server.log()


def test_progress_and_previews_at_every_step(server):
    prompt = exact(graph())
    prompt["8"]["inputs"]["noise_seed"] = 77
    run = server.queue(prompt, preview_method="latent2rgb")
    steps = len(Schedule().ddim_timesteps(STEPS))
    assert (steps, steps) in run.progress["13"]
    assert len(run.previews) >= steps
    assert Image.open(io.BytesIO(run.previews[-1])).size[0] > 0


def test_queueing_again_loads_and_encodes_nothing_again(server):
    first = ksampler(graph(), seed=5)
    server.queue(first)
    assert not server.queue(first).executed
    again = server.queue(ksampler(graph(), seed=6))
    assert {"1", "5", "7"} <= set(again.cached)
    assert set(again.executed) == {"13", "14"}


def test_cancel_and_go_on(server):
    handle = server.start(ksampler(graph(), seed=8, steps=400))
    handle.wait_until(lambda run: len(run.progress.get("13", ())) >= 2)
    server.interrupt()
    with pytest.raises(PromptInterrupted):
        handle.wait()
    assert server.queue(ksampler(graph(), seed=9)).finished


# What users share


@pytest.mark.parametrize("file", sorted((ROOT / "workflows" / "api").glob("*.json")), ids=lambda file: file.stem)
def test_every_workflow_makes_its_video(server, file):
    prompt = json.loads(file.read_text(encoding="utf-8"))
    conditioning = next(node for node in prompt.values() if node["class_type"] == "UniAnimateConditioning")
    frames = conditioning["inputs"]["length"]
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 3
    run = server.queue(prompt)
    (video,) = (path for path in server.output_files(run) if path.suffix == ".mp4")
    pictures, fps = read_video(video)
    assert pictures.shape == (frames, conditioning["inputs"]["height"], conditioning["inputs"]["width"], 3)
    assert fps == 30
    assert pictures.std() > 1, "a plain picture"
    assert np.abs(np.diff(pictures.astype(int), axis=0)).mean() > 0.1, "nothing moves"


@pytest.mark.parametrize("file", sorted((ROOT / "workflows").glob("*.json")), ids=lambda file: file.stem)
def test_workflow_in_ui_format_is_the_one_in_api_format(server, file):
    info = server.object_info()
    workflow = json.loads(file.read_text(encoding="utf-8"))
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        specs = {**info[node["type"]]["input"].get("required", {}), **info[node["type"]]["input"].get("optional", {})}
        values = iter(node["widgets_values"])
        inputs = {}
        for entry in node["inputs"]:
            if "widget" in entry:
                inputs[entry["name"]] = next(values)
                options = (specs[entry["name"]] + [{}])[1]
                if options.get("control_after_generate") or options.get("image_upload"):
                    next(values)  # widgets that the page adds of its own
            if entry["link"] is not None:
                inputs[entry["name"]] = links[entry["link"]]
        assert next(values, None) is None
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    api = json.loads((file.parent / "api" / file.name).read_text(encoding="utf-8"))
    assert prompt.keys() == api.keys()
    for node_id, node in api.items():
        assert prompt[node_id]["class_type"] == node["class_type"]
        # The page writes out every widget of this version; the API format only those that are not left to the host.
        assert prompt[node_id]["inputs"] | node["inputs"] == prompt[node_id]["inputs"], node_id


# Bad input: a clear error before any long work


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
        ({"length": 200, "start_frame": 0, "width": 16384, "height": 16384}, "GiB for the pose pictures alone"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_work_is_said_clearly(server, change, message):
    change = dict(change)
    model = change.pop("model", "golden.safetensors")
    with pytest.raises(PromptFailed, match=re.escape(message)):
        server.queue(ksampler(graph(model, **change)))


def test_a_latent_of_another_length_is_refused_before_sampling(server):
    prompt = ksampler(graph())
    prompt["12"] = {"class_type": "LatentFromBatch", "inputs": {"samples": ["7", 2], "batch_index": 0, "length": 3}}
    prompt["13"]["inputs"]["latent_image"] = ["12", 0]
    with pytest.raises(PromptFailed, match="'pose' has shape 1 5 3 96 64, expected 1 3 3 96 64"):
        server.queue(prompt)


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [("7", "width", 0), ("7", "height", -8), ("7", "length", 0), ("7", "noise_prior", 1000), ("4", "file", "no.json")],
)
def test_values_out_of_range_are_rejected_when_queued(server, node, name, value):
    prompt = ksampler(graph())
    prompt[node]["inputs"][name] = value
    with pytest.raises(PromptRejected):
        server.queue(prompt)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "frames|empty|no "), ("{nonsense", "JSON"), ('[{"people": []}]', "canvas"), ("", "empty")],
)
def test_motion_files_that_are_none(server, content, message):
    server.put_input("bad.json", content.encode())
    prompt = graph()
    prompt["4"]["inputs"]["file"] = "bad.json"
    with pytest.raises(PromptFailed, match=message):
        server.queue(ksampler(prompt, seed=hash(content) % 1000))


def test_a_motion_without_people_is_refused_and_one_with_gaps_is_drawn(server):
    frames = json.loads(DANCE.read_text())[:6]
    prompt = graph(start_frame=0)
    for frame in frames[1:4]:
        frame["people"] = []
    server.put_input("gaps.json", json.dumps(frames).encode())
    prompt["4"]["inputs"]["file"] = "gaps.json"
    assert server.queue(ksampler(prompt)).finished
    for frame in frames:
        frame["people"] = []
    server.put_input("nobody.json", json.dumps(frames).encode())
    prompt["4"]["inputs"]["file"] = "nobody.json"
    with pytest.raises(PromptFailed, match=r"[Nn]o person"):
        server.queue(ksampler(prompt))


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "P", "1 x 1"])
def test_pictures_of_every_kind(server, mode):
    if mode == "I;16":
        picture = Image.fromarray(_picture()[..., 0].astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(_picture()).convert("RGB" if mode == "1 x 1" else mode)
    png = io.BytesIO()
    picture.resize((1, 1) if mode == "1 x 1" else (50, 70)).save(png, "PNG")
    server.put_input("odd.png", png.getvalue())
    prompt = graph()
    prompt["3"]["inputs"]["image"] = "odd.png"
    result = latents(server, server.queue(ksampler(prompt, steps=1)))
    assert torch.isfinite(result).all()
