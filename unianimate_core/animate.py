"""A picture and a motion into a video: the whole way, in one page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .autoencoder import Autoencoder
from .diffusion import Schedule, noise_prior, offset_noise, sample
from .diffusion.ddim import Callback, check_guidance
from .diffusion.noise import CLIP_PRIOR, check_prior
from .errors import InputError
from .pose import MotionTrack, draw_motion, fit_track
from .pose.fitting import Fit
from .unet import Conditions, UNet
from .unet.config import check_size
from .video import fit_picture


@dataclass(frozen=True)
class Settings:
    """What a video is made with.

    Attributes:
        width: Of the video, pixels, a multiple of 8.
        height: Of the video, pixels, a multiple of 8.
        frames: Of the motion to use, from ``start`` on.
        start: First frame of the motion to use.
        steps: Of DDIM, 1-1000; see `sample`.
        guidance: Weight of conditional over unconditional, 0 or more; 1 switches guidance off.
        prior: Timestep of the noise prior, 0-999; 0 starts from pure noise.
        seed: Of the noise, 0 to 2^64 - 1; the same seed gives the same video, bit for bit, on one machine.
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

    def check(self) -> None:
        """Raise InputError for a value out of range, whatever the motion."""
        check_size(self.width, self.height)
        schedule = Schedule()
        schedule.ddim_timesteps(self.steps)
        check_guidance(self.guidance)
        check_prior(self.prior, schedule)
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed is {self.seed}: choose 0 to {2**64 - 1}")

    def check_motion(self, motion: MotionTrack) -> None:
        """Raise InputError where a motion has not the stretch that is asked for, or shows nobody in it."""
        if not 0 <= self.start < len(motion):
            raise InputError(f"start is {self.start}: the motion has {len(motion)} frames, 0 to {len(motion) - 1}")
        left = len(motion) - self.start
        if not 1 <= self.frames <= left:
            raise InputError(f"frames is {self.frames}: the motion has 1 to {left} from frame {self.start} on")
        if not motion.present[self.start : self.start + self.frames].any():
            raise InputError(
                f"the motion shows nobody in its frames {self.start} to {self.start + self.frames - 1}: "
                "choose another stretch or person"
            )


def animate(
    unet: UNet,
    autoencoder: Autoencoder,
    reference: Tensor,
    motion: MotionTrack,
    settings: Settings,
    reference_pose: MotionTrack | None = None,
    image: Tensor | None = None,
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
        reference_pose: Pose of the person in the picture, on a canvas of the picture's shape (else it is fitted to
            it); its first frame with a person counts. None: that of the motion's used frames, as if the person
            stood so.
        image: CLIP embedding of the picture, 1024; None leaves that condition out.
        text: Tokens of the empty prompt, 77 x 1024; None takes the checkpoint's own.
        callback: See `sample`.

    Returns:
        The frames in order, in small groups: g height width 3, 0-1, float32, on the CPU. The work is done when they
        are asked for.

    Raises:
        InputError: At once, when an input cannot be used.
    """
    settings.check()
    settings.check_motion(motion)
    width, height = settings.width, settings.height
    driving = fit_track(motion[settings.start : settings.start + settings.frames], width, height, settings.fit)
    picture, box = fit_picture(reference, width, height)
    standing = driving
    if reference_pose is not None:
        standing = fit_track(reference_pose, reference.shape[1], reference.shape[0], settings.fit).crop(*box)
    if not standing.present.any():
        raise InputError("the reference pose shows nobody: give another, or none to take the motion's")
    standing = standing[int(standing.present.argmax())]
    if text is None and unet.empty_prompt is None:
        raise InputError("no text tokens: give the empty prompt's, which this checkpoint does not bring")

    def frames() -> Iterator[Tensor]:
        latent = autoencoder.encode(rearrange(picture, "h w c -> 1 c h w"))  # 1 4 h w
        conditions = Conditions(
            text=None if text is None else text[None],
            image=None if image is None else image[None],
            pose=_drawn(driving, width, height)[None],
            reference=latent,
            reference_pose=_drawn(standing, width, height),
        )
        generator = torch.Generator().manual_seed(settings.seed)
        noise = offset_noise((1, latent.shape[1], settings.frames, *latent.shape[2:]), generator)  # 1 4 f h w
        x_T = noise_prior(latent, noise, settings.prior) if settings.prior else noise
        x0 = sample(unet, x_T, conditions, settings.steps, settings.guidance, callback=callback)
        for group in autoencoder.decode_groups(rearrange(x0, "1 c f h w -> f c h w")):
            yield rearrange(group, "f c h w -> f h w c").cpu()

    return frames()


def _drawn(track: MotionTrack, width: int, height: int) -> Tensor:
    """Skeleton pictures, f 3 H W, 0-1."""
    return rearrange(torch.from_numpy(draw_motion(track, width, height)), "f h w c -> f c h w") / 255
