"""A picture and a motion into a video: the whole way, in one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .autoencoder import Autoencoder
from .diffusion import noise_prior, offset_noise, sample
from .diffusion.ddim import Callback
from .diffusion.noise import CLIP_PRIOR
from .errors import InputError
from .pose import MotionTrack, draw_motion, fit_track
from .pose.fitting import Fit
from .unet import Conditions, UNet
from .unet.config import PIXELS_PER_LATENT
from .video import fit_picture

EncodeImage = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """What a video is made with.

    Attributes:
        width: Of the video, pixels, a multiple of 8.
        height: Of the video, pixels, a multiple of 8.
        frames: Of the motion to use, from ``start`` on.
        start: First frame of the motion to use.
        steps: Of DDIM, 1-1000.
        guidance: Weight of conditional over unconditional.
        prior: Timestep of the noise prior, 0-999; 0 starts from pure noise.
        seed: Of the noise; the same seed gives the same video, bit for bit, on one machine.
        fit: How the motion is put on the video's canvas; see `fit_track`.
    """

    width: int
    height: int
    frames: int
    start: int = 0
    steps: int = 30
    guidance: float = 2.5
    prior: int = CLIP_PRIOR
    seed: int = 0
    fit: Fit = "crop"

    def check(self, motion: MotionTrack) -> None:
        """Raise InputError for a size or a stretch of the motion that cannot be."""
        for name, size in (("width", self.width), ("height", self.height)):
            if size < 1 or size % PIXELS_PER_LATENT:
                below = max(PIXELS_PER_LATENT, size // PIXELS_PER_LATENT * PIXELS_PER_LATENT)
                nearest = sorted({below, below + PIXELS_PER_LATENT} if size > 0 else {PIXELS_PER_LATENT})
                raise InputError(
                    f"{name} is {size}, not a positive multiple of {PIXELS_PER_LATENT}: "
                    f"the nearest good ones are {' and '.join(map(str, nearest))}"
                )
        if self.frames < 1 or self.start < 0:
            raise InputError(f"frames is {self.frames} and start {self.start}: at least 1 frame, from frame 0 or later")
        if self.start + self.frames > len(motion):
            left = len(motion) - self.start
            advice = f"ask for {left} frames" if left > 0 else f"start before frame {len(motion)}"
            raise InputError(
                f"the motion has {len(motion)} frames, but {self.frames} from frame {self.start} on were asked for: "
                f"{advice}, or give a longer motion"
            )


def animate(
    unet: UNet,
    autoencoder: Autoencoder,
    reference: Tensor,
    motion: MotionTrack,
    settings: Settings,
    reference_pose: MotionTrack | None = None,
    encode_image: EncodeImage | None = None,
    text: Tensor | None = None,
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """Animate the person of a picture by a motion (paper, section 3.2; a clip from a reference picture).

    Args:
        unet: From `load_unet`.
        autoencoder: From `load_autoencoder`.
        reference: The picture, h w 3, 0-1, of any size.
        motion: The driving motion.
        settings: Size, length, sampling.
        reference_pose: Pose of the person in the picture, one frame, on the picture's canvas. None: the motion's
            first used frame, as if the person stood so.
        encode_image: CLIP's image tower, b 3 H W → b 1024; None leaves that condition out.
        text: Tokens of the empty prompt, 77 x 1024; None takes the checkpoint's own.
        callback: See `sample`.

    Yields:
        The frames in order, in small groups: g height width 3, 0-1, float32.

    Raises:
        InputError: Before any long work, when an input cannot be used.
    """
    settings.check(motion)
    width, height = settings.width, settings.height
    driving = fit_track(motion[settings.start : settings.start + settings.frames], width, height, settings.fit)
    picture, box = fit_picture(reference, width, height)
    standing = driving[0] if reference_pose is None else reference_pose[0].crop(*box)

    pixels = rearrange(picture, "h w c -> 1 c h w")
    latent = autoencoder.encode(pixels)  # 1 4 h w
    conditions = Conditions(
        text=None if text is None else text[None],
        image=None if encode_image is None else encode_image(rearrange(reference, "h w c -> 1 c h w")),
        pose=_drawn(driving, width, height)[None],
        reference=latent,
        reference_pose=_drawn(standing, width, height),
    )
    generator = torch.Generator().manual_seed(settings.seed)
    noise = offset_noise((1, latent.shape[1], settings.frames, *latent.shape[2:]), generator)  # 1 4 f h w
    x_T = noise_prior(latent, noise, settings.prior) if settings.prior else noise
    x0 = sample(unet, x_T, conditions, settings.steps, settings.guidance, callback=callback)
    for frames in autoencoder.decode_groups(rearrange(x0, "1 c f h w -> f c h w")):
        yield rearrange(frames, "f c h w -> f h w c").cpu()


def _drawn(track: MotionTrack, width: int, height: int) -> Tensor:
    """Skeleton pictures, f 3 H W, 0-1."""
    return rearrange(torch.from_numpy(draw_motion(track, width, height)), "f h w c -> f c h w") / 255
