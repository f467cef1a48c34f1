"""A picture and a motion of any length into a video: segment after segment, each from the last frame of the one before.

First-frame chaining (paper, section 3.2). Memory holds one segment, however long the video is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from .animate import Animation
from .diffusion.ddim import Callback
from .errors import InputError
from .video.colour import ColourStatistics, colour_statistics, hold_colours, mean_statistics, person_mask
from .video.plan import LastSegment, Segment, join_shared, plan_segments
from .video.writing import to_uint8

PriorSource = Literal["reference", "start-frame", "nothing"]
HeldColours = Literal["free", "reference", "first-segment"]
Decoded = Callable[[int], None]


@dataclass(frozen=True)
class Chaining:
    """How a long video is cut into segments, and what is done against drift.

    Attributes:
        length: Frames of a segment, 2 or more; the public weights know 16 and 32.
        shared: Frames that neighbours have in common, 1 to length - 1. The first of them is the start frame; over the
            others the earlier segment fades into the later one.
        last: What becomes of a last segment that the motion does not fill; see `plan_segments`.
        prior: What the noise prior of a segment but the first is made of: the reference picture's latent; that of the
            start frame, as it was sampled, not decoded and encoded again; or nothing but noise.
        colours: Hold mean and contrast of the colours, of person and background apart, to those of the reference
            picture or of the first segment; or leave them free.
    """

    length: int
    shared: int = 1
    last: LastSegment = "shorten"
    prior: PriorSource = "reference"
    colours: HeldColours = "free"

    def plan(self, frames: int) -> list[Segment]:
        """The segments of a video of so many frames.

        Raises:
            InputError: A value is out of range.
        """
        for name, value, known in (("prior", self.prior, PriorSource), ("colours", self.colours, HeldColours)):
            if value not in get_args(known):
                raise InputError(f"{name} of segments {value!r} is unknown: choose {', '.join(get_args(known))}")
        return plan_segments(frames, self.length, self.shared, self.last)


@dataclass(frozen=True)
class Made:
    """A segment as it was made.

    Attributes:
        frames: uint8 n h w 3; of the frames that it shares with the segment before as they are in the video, without
            the padding.
        latents: n 4 h w, as sampled.
    """

    frames: Tensor
    latents: Tensor


class Kept(Protocol):
    """Segments that were made before, in order from the first, and stay when a run ends; see `SegmentFolder`."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> Made:
        """One of them."""

    def add(self, made: Made) -> None:
        """Keep the next."""


class LongVideo:
    """Makes the segments of a long video.

    Frames are rounded to 8 bits as soon as they are made: what a segment goes on from is what the video shows. So
    segments that were kept in a lossless file, and read again, lead to the same video.

    Args:
        animation: Picture, motion and settings, ready. Its ``seed`` is the first segment's; the others' follow from it.
        chaining: How it is cut.

    Attributes:
        plan: The segments.

    Raises:
        InputError: The chaining is out of range.
    """

    def __init__(self, animation: Animation, chaining: Chaining) -> None:
        self.animation, self.chaining = animation, chaining
        self.plan = chaining.plan(animation.settings.frames)

    def segments(
        self, kept: Kept | None = None, callback: Callback | None = None, decoded: Decoded | None = None
    ) -> Iterator[Made]:
        """Make the segments in order, one when it is asked for.

        Args:
            kept: Segments of the same video that are there already, and are not made (nor given) again; new ones are
                added.
            callback: See `sample`; called for each segment.
            decoded: Called with the number of frames that were decoded.

        Returns:
            The segments that were made.
        """
        done = 0 if kept is None else len(kept)
        before = kept.read(done - 1) if kept is not None and done else None
        target = None
        if self.chaining.colours == "reference":
            picture = to_uint8(self.animation.picture)[None]
            target = self._statistics(picture, self.animation.draw_standing())
        elif self.chaining.colours == "first-segment" and kept is not None and done:
            target = self._statistics(kept.read(0).frames, self._drawn(self.plan[0]))
        for number, segment in list(enumerate(self.plan))[done:]:
            made = self._make(number, segment, before, target, callback, decoded)
            if kept is not None:
                kept.add(made)
            if number == 0 and self.chaining.colours == "first-segment":
                target = self._statistics(made.frames, self._drawn(segment))
            if number + 1 < len(self.plan):  # of this one only what the next needs is held
                shared = self.plan[number + 1].shared
                before = Made(made.frames[-shared:].clone(), made.latents[-shared:].clone())
            yield made
            del made

    def written(self, number: int, made: Made) -> Tensor:
        """The frames of a segment that are written before the next one's: all but those that the next shares."""
        if number + 1 == len(self.plan):
            return made.frames
        return made.frames[: self.plan[number + 1].start - self.plan[number].start]

    def _make(
        self,
        number: int,
        segment: Segment,
        before: Made | None,
        target: ColourStatistics | None,
        callback: Callback | None,
        decoded: Decoded | None,
    ) -> Made:
        start_frame: Tensor | None = None
        prior: Tensor | None = self.animation.reference
        if before is not None:
            start_frame = before.frames[-segment.shared] / 255
            if self.chaining.prior == "start-frame":
                prior = before.latents[-segment.shared][None]
            elif self.chaining.prior == "nothing":
                prior = None
        seed = segment_seed(self.animation.settings.seed, number)
        latents = self.animation.latent(segment.poses(), seed, start_frame, prior, callback)
        latents = latents[: segment.length - segment.padding].cpu()  # n 4 h w
        groups = []
        for group in self.animation.decode(latents):
            groups.append(to_uint8(group))
            if decoded is not None:
                decoded(len(group))
        frames = torch.cat(groups)  # n h w 3
        if target is not None:
            frames = hold_colours(frames, person_mask(self._drawn(segment)), target)
        if before is not None:
            shared = segment.shared
            joined = join_shared(before.frames[-shared:] / 255, frames[:shared] / 255)
            frames[:shared] = to_uint8(joined)
        return Made(frames, latents)

    def _drawn(self, segment: Segment) -> Tensor:
        return self.animation.draw(segment.poses()[: segment.length - segment.padding])

    @staticmethod
    def _statistics(frames: Tensor, pose: Tensor) -> ColourStatistics:
        return mean_statistics(colour_statistics(frames, person_mask(pose)))


def animate_long(animation: Animation, chaining: Chaining, callback: Callback | None = None) -> Iterator[Tensor]:
    """Animate the person of a picture by a motion of any length.

    Args:
        animation: Picture, motion and settings, ready; `LONG_VIDEO_PRIOR` is the usual noise prior.
        chaining: How it is cut into segments.
        callback: See `sample`; called for each segment.

    Returns:
        The frames in order, segment by segment: uint8 n height width 3, on the CPU.

    Raises:
        InputError: At once, when the chaining is out of range.
    """
    video = LongVideo(animation, chaining)
    return (video.written(number, made) for number, made in enumerate(video.segments(callback=callback)))


def segment_seed(seed: int, number: int) -> int:
    """The seed of a segment's noise: the video's for the first, then numbers that follow from it, alike for no two."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
