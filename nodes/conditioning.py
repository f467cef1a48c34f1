"""Everything that steers the video, as CONDITIONING and LATENT."""

from __future__ import annotations

import comfy.latent_formats
import comfy.model_management
import torch
from comfy_api.latest import io
from einops import rearrange

from ..unianimate_core.diffusion.noise import CLIP_PRIOR
from ..unianimate_core.errors import InputError
from ..unianimate_core.unet import Conditions
from ..unianimate_core.unet.config import PIXELS_PER_LATENT, check_size
from ..unianimate_core.unet.memory import require_memory
from ..unianimate_core.video import fit_picture
from .model import CONDITIONS, NOISE_PRIOR

CATEGORY = "UniAnimate/conditioning"


class UniAnimateConditioning(io.ComfyNode):
    """Pictures, poses and text into what a sampler takes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The driving pose and a size; all else is optional."""
        return io.Schema(
            node_id="UniAnimateConditioning",
            display_name="UniAnimate Conditioning",
            category=CATEGORY,
            description="Animates the person of the reference picture by the driving pose. For any sampler: connect "
            "positive, negative and latent to a KSampler with denoise 1.",
            inputs=[
                io.Vae.Input("vae", tooltip="Stable Diffusion 1.5's VAE, or the small model's own."),
                io.Image.Input("driving_pose", tooltip="The motion, one picture per frame, from Draw UniAnimate Pose."),
                io.Int.Input(
                    "width",
                    default=512,
                    min=64,
                    max=16384,
                    step=8,
                    tooltip="Width of the video. The public weights know 512 x 768 and 768 x 1216.",
                ),
                io.Int.Input("height", default=768, min=64, max=16384, step=8, tooltip="Height of the video."),
                io.Int.Input(
                    "length", default=32, min=1, max=16384, tooltip="Frames of the video, from start_frame on."
                ),
                io.Int.Input("start_frame", default=0, min=0, max=1000000, tooltip="First frame of the motion to use."),
                io.Int.Input(
                    "noise_prior",
                    default=CLIP_PRIOR,
                    min=0,
                    max=999,
                    tooltip="Sampling starts from the reference picture noised to this timestep, which keeps "
                    "background and colours. 949 suits clips, 939 long videos, 959 to 969 helps against ghosting. "
                    "0: pure noise.",
                ),
                io.Conditioning.Input(
                    "text",
                    optional=True,
                    tooltip="The EMPTY prompt through CLIP Text Encode with OpenCLIP ViT-H. "
                    "Not needed where the checkpoint brings its tokens.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="The reference picture through CLIP Vision Encode (OpenCLIP ViT-H, crop: none).",
                ),
                io.Image.Input(
                    "reference_image", optional=True, tooltip="The person to animate; the first of several pictures."
                ),
                io.Image.Input("reference_pose", optional=True, tooltip="Drawn pose of the reference picture."),
                io.Image.Input(
                    "first_frame",
                    optional=True,
                    tooltip="The video's first frame: the picture itself, or the last frame of the segment before.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative", tooltip="All conditions absent but the text."),
                io.Latent.Output(display_name="latent", tooltip="The noise prior's start; frames are the batch."),
            ],
        )

    @classmethod
    def execute(
        cls,
        vae,
        driving_pose,
        width,
        height,
        length,
        start_frame,
        noise_prior,
        text=None,
        clip_vision_output=None,
        reference_image=None,
        reference_pose=None,
        first_frame=None,
    ) -> io.NodeOutput:
        """Check everything, then encode the reference picture."""
        check_size(width, height)
        frames = driving_pose.shape[0]
        if start_frame + length > frames:
            fits = (
                f"lower length to {frames - start_frame}"
                if start_frame < frames
                else f"lower start_frame below {frames}"
            )
            raise InputError(
                f"driving_pose has {frames} frames, but start_frame {start_frame} and length {length} "
                f"need {start_frame + length}: {fits}, or give a longer motion"
            )
        what = f"the pose pictures of {length} frames of {width} x {height}"
        require_memory(length * 3 * width * height * 4, torch.device("cpu"), what, "Lower width, height or length")
        pose = _pixels(driving_pose[start_frame : start_frame + length], width, height)  # f 3 H W
        reference = None if reference_image is None else _pixels(reference_image[:1], width, height)  # 1 3 H W
        first = None if first_frame is None else _pixels(first_frame[-1:], width, height)  # 1 3 H W

        start = reference if reference is not None else first
        latent = torch.zeros(1, 4, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)  # 1 4 h w
        if start is not None:
            latent = vae.encode(rearrange(start, "1 c h w -> 1 h w c")).float().cpu()
            if latent.shape[1:] != (4, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT):
                raise InputError(
                    f"the VAE makes latents of shape {tuple(latent.shape[1:])}, UniAnimate needs "
                    f"{(4, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)}: choose Stable Diffusion 1.5's VAE"
                )
        image = None if clip_vision_output is None else clip_vision_output.image_embeds[:1]
        tokens = None if text is None else text[0][0][:1]
        conditions = Conditions(
            text=tokens,
            image=image,
            pose=pose[None],
            reference=None if reference is None else comfy.latent_formats.SD15().process_in(latent),
            reference_pose=None if reference_pose is None else _pixels(reference_pose[:1], width, height),
            first_frame=first,
        )
        carried = tokens if tokens is not None else torch.zeros(1, 1, 1)  # a CONDITIONING needs a tensor
        positive = [[carried, {CONDITIONS: conditions, NOISE_PRIOR: noise_prior}]]
        negative = [[carried, {CONDITIONS: conditions.unconditional()}]]
        samples = latent if noise_prior > 0 else torch.zeros_like(latent)
        samples = samples.repeat(length, 1, 1, 1).to(comfy.model_management.intermediate_device())  # f 4 h w
        return io.NodeOutput(positive, negative, {"samples": samples})


def _pixels(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """An IMAGE b H W c as RGB pictures b 3 height width, 0-1, fitted as the library fits its pictures."""
    if image.shape[-1] not in (1, 3, 4):
        raise InputError(f"a picture has {image.shape[-1]} channels: give an RGB picture (3), or grey (1), or RGBA (4)")
    pictures = image[..., :3].expand(*image.shape[:-1], 3).float()  # b H W 3
    if pictures.shape[1:3] != (height, width):
        pictures = torch.stack([fit_picture(picture, width, height)[0] for picture in pictures])
    return rearrange(pictures, "b h w c -> b c h w").clamp(0, 1)


NODES = [UniAnimateConditioning]
