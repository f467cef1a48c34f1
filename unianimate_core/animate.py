"""A picture and a motion into a video: the whole way, in one page. Long videos go on from here in long_video.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from torch import Tensor

from .autoencoder import Autoencoder
from .diffusion import Schedule, frame_weights, noise_prior, offset_noise, sample, window_starts
from .diffusion.ddim import Callback, check_guidance
from .diffusion.noise import CLIP_PRIOR, check_prior
from .diffusion.windows import WindowWeights
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
        window: Frames the network sees at once; None for all that are sampled together. See `sample`.
        overlap: Frames that neighbouring windows share.
        window_weights: Of a window's frames where windows overlap.
        windows_at_once: Windows in one pass of the network; None for as many as fit.
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
    window: int | None = None
    overlap: int = 0
    window_weights: WindowWeights = "uniform"
    windows_at_once: int | None = None

    def check(self) -> None:
        """Raise InputError for a value out of range, whatever the motion."""
        check_size(self.width, self.height)
        schedule = Schedule()
        schedule.ddim_timesteps(self.steps)
        check_guidance(self.guidance)
        check_prior(self.prior, schedule)
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed is {self.seed}: choose 0 to {2**64 - 1}")
        if self.window is not None:
            window_starts(self.window, self.window, self.overlap)
        elif self.overlap:
            raise InputError(f"overlap is {self.overlap}, but there are no windows: give their size, too")
        frame_weights(1, self.window_weights)
        if self.windows_at_once is not None and self.windows_at_once < 1:
            raise InputError(f"windows at once are {self.windows_at_once}: give 1 or more")

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


class Animation:
    """A picture and a motion, checked and put on the video's canvas; makes any stretch of the video.

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

    Attributes:
        picture: The reference picture in the video's size, h w 3, 0-1.
        driving: The used frames of the motion, on the video's canvas.
        standing: The pose of the person in the picture, one frame.

    Raises:
        InputError: An input cannot be used. The work is done later.
    """

    def __init__(
        self,
        unet: UNet,
        autoencoder: Autoencoder,
        reference: Tensor,
        motion: MotionTrack,
        settings: Settings,
        reference_pose: MotionTrack | None = None,
        image: Tensor | None = None,
        text: Tensor | None = None,
    ) -> None:
        settings.check()
        settings.check_motion(motion)
        width, height = settings.width, settings.height
        used = motion[settings.start : settings.start + settings.frames]
        self.driving = standing = fit_track(used, width, height, settings.fit)
        self.picture, box = fit_picture(reference, width, height)
        if reference_pose is not None:
            standing = fit_track(reference_pose, reference.shape[1], reference.shape[0], settings.fit).crop(*box)
        if not standing.present.any():
            raise InputError("the reference pose shows nobody: give another, or none to take the motion's")
        self.standing = standing[int(standing.present.argmax())]
        if text is None and unet.empty_prompt is None:
            raise InputError("no text tokens: give the empty prompt's, which this checkpoint does not bring")
        self.settings = settings
        self._unet, self._autoencoder = unet, autoencoder
        self._image, self._text = image, text

    @cached_property
    def reference(self) -> Tensor:
        """Latent of the reference picture, 1 4 h w."""
        return self._autoencoder.encode(rearrange(self.picture, "h w c -> 1 c h w"))

    def draw(self, poses: Sequence[int]) -> Tensor:
        """Skeleton pictures of some of the used frames, f 3 H W, 0-1."""
        return self._drawn(self.driving[poses])

    def draw_standing(self) -> Tensor:
        """The skeleton picture of the reference picture's person, 1 3 H W, 0-1."""
        return self._drawn(self.standing)

    def latent(
        self,
        poses: Sequence[int],
        seed: int,
        first_frame: Tensor | None = None,
        prior: Tensor | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Sample a stretch of the video.

        Args:
            poses: Which of the motion's used frames drive it.
            seed: Of the noise.
            first_frame: The frame that it goes on from, h w 3, 0-1; None for a clip of the reference picture alone.
            prior: Latent 1 4 h w from which, noised to ``settings.prior``, the sampling starts; None for noise alone.
            callback: See `sample`.

        Returns:
            Latents f 4 h w.
        """
        settings, reference = self.settings, self.reference
        conditions = Conditions(
            text=None if self._text is None else self._text[None],
            image=None if self._image is None else self._image[None],
            pose=self.draw(poses)[None],
            reference=reference,
            reference_pose=self.draw_standing(),
            first_frame=None if first_frame is None else rearrange(first_frame, "h w c -> 1 c h w"),
        )
        generator = torch.Generator().manual_seed(seed)
        x_T = offset_noise((1, reference.shape[1], len(poses), *reference.shape[2:]), generator)  # 1 4 f h w
        if settings.prior and prior is not None:
            x_T = noise_prior(prior, x_T, settings.prior)
        x0 = sample(
            self._unet,
            x_T,
            conditions,
            settings.steps,
            settings.guidance,
            settings.window,
            settings.overlap,
            callback,
            window_weights=settings.window_weights,
            windows_at_once=settings.windows_at_once,
        )
        return rearrange(x0, "1 c f h w -> f c h w")

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Frames in small groups, g height width 3, 0-1, float32, on the CPU, from latents f 4 h w."""
        for group in self._autoencoder.decode_groups(latents):
            yield rearrange(group, "f c h w -> f h w c").cpu()

    def _drawn(self, track: MotionTrack) -> Tensor:
        pictures = draw_motion(track, self.settings.width, self.settings.height)
        return rearrange(torch.from_numpy(pictures), "f h w c -> f c h w") / 255


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
        unet: As `Animation`, and so are the others.
        autoencoder: The same.
        reference: The same.
        motion: The same.
        settings: The same.
        reference_pose: The same.
        image: The same.
        text: The same.
        callback: See `sample`.

    Returns:
        The frames in order, in small groups: g height width 3, 0-1, float32, on the CPU. The work is done when they
        are asked for.

    Raises:
        InputError: At once, when an input cannot be used.
    """
    animation = Animation(unet, autoencoder, reference, motion, settings, reference_pose, image, text)

    def frames() -> Iterator[Tensor]:
        poses = range(settings.frames)
        latents = animation.latent(poses, settings.seed, prior=animation.reference, callback=callback)
        yield from animation.decode(latents)

    return frames()
