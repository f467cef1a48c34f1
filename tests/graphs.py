"""Graphs of our nodes, and the same video by the library, for the tests in a real ComfyUI."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from comfy_server import ComfyServer, Run
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file
from synthetic import golden_weights, synth

from unianimate_core import Conditions, draw_motion, load_unet, noise_prior, offset_noise, sample
from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.pose import MotionTrack
from unianimate_core.video import VideoWriter, fit_picture

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "unianimate_core" / "assets"
DANCE = ROOT / "samples" / "dance.json"
GOLDEN = Path(__file__).parent / "golden_data"
SMALL_VAE = "unianimate_small_vae.safetensors"
WIDTH, HEIGHT, FRAMES, STEPS = 64, 96, 5, 6
DRIVING_FRAMES = 18  # of the driving video
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

class Models:
    """Names the models that ComfyUI holds, and what our own asks for memory."""
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "run", (), True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"when": ("INT", {})}, "optional": {"model": ("MODEL",)}}
    def run(self, when, model=None):
        import comfy.model_management as management
        needed = [] if model is None else [int(model.memory_required([f, 4, 12, 8])) for f in (1, 4, 16)]
        held = [type(loaded.model.model).__name__ for loaded in management.current_loaded_models]
        return {"ui": {"models": held, "needed": needed}}

class Images:
    """Writes pictures as they are, and names the file."""
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "run", (), True
    @classmethod
    def INPUT_TYPES(cls):
        optional = {"text": ("STRING", {"forceInput": True})}
        return {"required": {"images": ("IMAGE",), "name": ("STRING", {})}, "optional": optional}
    def run(self, images, name, text=""):
        save_file({"images": images.contiguous()}, folder_paths.base_path + "/" + name)
        return {"ui": {"text": [text]}}

class Fail:
    """A model that fails once, in a forward pass of that number."""
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("MODEL",)
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "forward": ("INT", {})}}
    def run(self, model, forward):
        model, passed = model.clone(), []
        def fail(executor, *args, **kwargs):
            passed.append(1)
            if len(passed) == forward:
                raise RuntimeError("the probe fails")
            return executor(*args, **kwargs)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "probe", fail)
        return (model,)

NODE_CLASS_MAPPINGS = {
    "ProbeModels": Models, "ProbeText": Text, "ProbeWatch": Watch, "ProbeReport": Report, "ProbeImages": Images,
    "ProbeFail": Fail,
}
'''


def picture_of_working_size() -> np.ndarray:
    """A reference picture of exactly the working size, so that nothing is resized: H W 3 uint8."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack((x * 255 // WIDTH, y * 255 // HEIGHT, (x + y) % 256), axis=-1).astype(np.uint8)


def put_picture(server: ComfyServer, name: str, picture: Image.Image) -> str:
    """Put a picture in the server's input folder, as PNG; returns its name."""
    png = io.BytesIO()
    picture.save(png, "PNG")
    return server.put_input(name, png.getvalue())


def driving_pictures(frames: int) -> np.ndarray:
    """Pictures in which the stub of the person detector finds someone: f H W 3 uint8."""
    picture = np.load(GOLDEN / "dwpose" / "dwpose.npz")["0.image_rgb"]
    return np.stack([np.roll(picture, 2 * number, axis=1) for number in range(frames)])


def put_video(server: ComfyServer, name: str, frames: int, fps: float = 30.0) -> str:
    """Put such a video in the server's input folder; returns its name."""
    pictures = driving_pictures(frames)
    with VideoWriter(server.base / "input" / name, pictures.shape[2], pictures.shape[1], fps) as writer:
        writer.write(torch.from_numpy(pictures) / 255)
    return name


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


def exact(prompt: dict, model="1", cfg=2.5, offset=0.1, steps=STEPS) -> dict:
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
                "inputs": {"model": [model, 0], "steps": steps, "denoise": 1.0},
            },
            "13": {"class_type": "SamplerCustomAdvanced", "inputs": sampler | {"latent_image": ["7", 2]}},
        }
        | SAVE_LATENT
    )


def long_video(prompt: dict, node="UniAnimateLongVideo", model="1", steps=4, **inputs) -> dict:
    """The loaders of `graph` and 20, a node for long videos; its images go to `images`."""
    settings = {"width": WIDTH, "height": HEIGHT, "length": 9, "start_frame": 2, "segment_length": 4}
    settings |= {"shared_frames": 1, "last_segment": "overlap", "cfg": 2.5, "noise_seed": 3, "noise_prior": 939}
    settings |= {"segment_seeds": "", "hold_colours": "free"}
    links = {"model": [model, 0], "vae": ["2", 0], "sampler": ["10", 0], "sigmas": ["11", 0]}
    links |= {"driving_pose": ["5", 0], "reference_image": ["3", 0], "reference_pose": ["6", 0]}
    sampling = exact(prompt, model, steps=steps)
    nodes = {name: sampling[name] for name in sampling if name not in ("7", "8", "9", "13", "14")}
    if node == "UniAnimateLongVideo":
        nodes["21"] = {
            "class_type": "ProbeImages",
            "inputs": {"images": ["20", 0], "name": "images.safetensors", "text": ["20", 1]},
        }
    else:
        inputs = {"fps": 30.0, "filename_prefix": "long", "format": "mkv, FFV1 (lossless)"} | inputs
    return nodes | {"20": {"class_type": node, "inputs": settings | links | inputs}}


def images(server: ComfyServer, name: str = "images.safetensors") -> torch.Tensor:
    """What the probe wrote last: f h w 3, 0-1."""
    return load_file(server.base / name)["images"]


def latents(server: ComfyServer, run: Run) -> torch.Tensor:
    """What SaveLatent wrote, as the network scales it: f 4 h w."""
    (file,) = (path for path in server.output_files(run) if path.suffix == ".latent")
    return load_file(file)["latent_tensor"] * LATENT_SCALE


def in_the_library(guidance=2.5, prior=949, offset=0.1, steps=STEPS, clean=False, picture=None, **more) -> torch.Tensor:
    """The same video by the library's own sampling: f 4 h w; ``clean`` for the last estimate of x0, at sigma 0."""
    track = MotionTrack.from_pose_keypoints(json.loads(DANCE.read_text()))
    drawn = rearrange(torch.from_numpy(draw_motion(track, WIDTH, HEIGHT)), "f h w c -> f c h w") / 255
    picture = picture_of_working_size() if picture is None else picture
    picture = rearrange(fit_picture(torch.from_numpy(picture) / 255, WIDTH, HEIGHT)[0], "h w c -> 1 c h w")
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
        load_unet(golden_weights()), x_T, conditions, steps, guidance, callback=lambda *s: estimates.append(s[2])
    )
    return rearrange(estimates[-1] if clean else x, "1 c f h w -> f c h w")
