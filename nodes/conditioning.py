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
                io.Int.Input(
                    "start_frame",
                    default=0,
                    min=0,
                    max=1000000,
                    tooltip="First frame of the motion to use. With continue_from, the frame behind those made already "
                    "(start_frame of the node before): the motion is used from shared_frames before it on.",
                ),
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
                io.Image.Input(
                    "continue_from",
                    optional=True,
                    tooltip="All frames of the segment before, or of what was joined already. This one goes on from "
                    "them: the first of the last shared_frames is its first frame.",
                ),
                io.Int.Input(
                    "shared_frames",
                    default=1,
                    min=1,
                    max=16384,
                    optional=True,
                    tooltip="With continue_from: frames that both segments show. Join Segments cross-fades them.",
                ),
                io.Boolean.Input(
                    "hold_last_pose",
                    default=False,
                    optional=True,
                    tooltip="Where the motion ends early, hold its last pose, rather than refuse.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative", tooltip="All conditions absent but the text."),
                io.Latent.Output(display_name="latent", tooltip="The noise prior's start; frames are the batch."),
                io.Int.Output(
                    display_name="start_frame", tooltip="The frame behind this segment: start_frame of the next."
                ),
                io.Int.Output(
                    display_name="trim_image",
                    tooltip="Frames at the beginning that the segment before shows too; 0 without continue_from.",
                ),
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
        continue_from=None,
        shared_frames=1,
        hold_last_pose=False,
    ) -> io.NodeOutput:
        """Check everything, then encode the reference picture."""
        check_size(width, height)
        shared = 0
        if continue_from is not None:
            shared = _check_shared(shared_frames, start_frame, length, continue_from.shape[0])
            start_frame -= shared
            first_frame = continue_from[-shared:][:1]
        frames = driving_pose.shape[0]
        if start_frame >= frames or (start_frame + length > frames and not hold_last_pose):
            fits = (
                f"lower length to {frames - start_frame}"
                if start_frame < frames
                else f"lower start_frame below {frames + shared}"
            )
            raise InputError(
                f"driving_pose has {frames} frames, but start_frame {start_frame + shared} and length {length} "
                f"need {start_frame + length}: {fits}, or give a longer motion"
            )
        what = f"the pose pictures of {length} frames of {width} x {height}"
        require_memory(length * 3 * width * height * 4, torch.device("cpu"), what, "Lower width, height or length")
        pose = fitted_pixels(driving_pose[start_frame : start_frame + length], width, height)  # f 3 H W
        if lacking := length - pose.shape[0]:
            pose = torch.cat((pose, pose[-1:].expand(lacking, -1, -1, -1)))
        reference = None if reference_image is None else fitted_pixels(reference_image[:1], width, height)  # 1 3 H W
        first = None if first_frame is None else fitted_pixels(first_frame[-1:], width, height)  # 1 3 H W

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
            reference_pose=None if reference_pose is None else fitted_pixels(reference_pose[:1], width, height),
            first_frame=first,
        )
        carried = tokens if tokens is not None else torch.zeros(1, 1, 1)  # a CONDITIONING needs a tensor
        positive = [[carried, {CONDITIONS: conditions, NOISE_PRIOR: noise_prior}]]
        negative = [[carried, {CONDITIONS: conditions.unconditional()}]]
        samples = latent if noise_prior > 0 else torch.zeros_like(latent)
        samples = samples.repeat(length, 1, 1, 1).to(comfy.model_management.intermediate_device())  # f 4 h w
        return io.NodeOutput(positive, negative, {"samples": samples}, start_frame + length, shared)


def fitted_pixels(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """An IMAGE b H W c as RGB pictures b 3 height width, 0-1, fitted as the library fits its pictures."""
    if image.shape[-1] not in (1, 3, 4):
        raise InputError(f"a picture has {image.shape[-1]} channels: give an RGB picture (3), or grey (1), or RGBA (4)")
    pictures = image[..., :3].expand(*image.shape[:-1], 3).float()  # b H W 3
    if pictures.shape[1:3] != (height, width):
        pictures = torch.stack([fit_picture(picture, width, height)[0] for picture in pictures])
    if pictures.numel() and (pictures.amin() < 0 or pictures.amax() > 1):  # else no copy: motions are long
        pictures = pictures.clamp(0, 1)
    return rearrange(pictures, "b h w c -> b c h w")


def _check_shared(shared: int, start_frame: int, length: int, made: int) -> int:
    """Shared frames that both segments and the motion have.

    Raises:
        InputError: One of them is too short.
    """
    if shared >= length:
        raise InputError(f"{shared} shared frames in a segment of {length}: give 1 to {length - 1}, or raise length")
    if shared > made:
        raise InputError(f"continue_from has {made} frames, but {shared} are shared: lower shared_frames to {made}")
    if shared > start_frame:
        raise InputError(
            f"start_frame is {start_frame}, but {shared} frames before it are shared: connect start_frame of the "
            "conditioning of the segment before"
        )
    return shared


NODES = [UniAnimateConditioning]
