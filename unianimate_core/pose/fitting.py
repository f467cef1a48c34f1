"""A motion on a canvas of another shape."""

from __future__ import annotations

from typing import Literal

from ..errors import InputError
from .keypoints import MotionTrack

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")


def fit_track(track: MotionTrack, width: int, height: int, fit: Fit = "crop") -> MotionTrack:
    """Put a motion on a canvas of another aspect ratio without distorting the person.

    Args:
        track: The motion; its canvas gives the present aspect ratio.
        width: Of the new canvas, in pixels.
        height: Of the new canvas, in pixels.
        fit: ``crop`` fills the canvas and cuts what hangs over, centred, as pictures are fitted; ``pad`` shows all of
            the old canvas; ``stretch`` keeps the fractions, and so distorts.

    Raises:
        InputError: A size below 1, or an unknown fit.
    """
    if width < 1 or height < 1:
        raise InputError(f"canvas {width} x {height}: width and height must be at least 1 pixel")
    if fit not in FITS:
        raise InputError(f"fit is {fit!r}: choose one of {', '.join(FITS)}")
    if fit == "stretch":
        return track
    ratio = (width / height) / (track.width / track.height)  # above 1: the new canvas is wider
    narrow = (1.0, 1.0 / ratio) if (ratio > 1) == (fit == "crop") else (ratio, 1.0)  # shown share of x, of y
    left, top = (1 - narrow[0]) / 2, (1 - narrow[1]) / 2
    return track.crop(left, top, left + narrow[0], top + narrow[1])
