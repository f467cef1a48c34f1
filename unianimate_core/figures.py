"""Figures of what was trained or measured, by matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np

from .optional import require


def new_figure(width: float, height: float, remedy: str) -> Any:
    """A figure of its own, not pyplot's: no window, no global state, no backend of the user's changed.

    Args:
        width: In hundreds of pixels.
        height: The same.
        remedy: What to install where matplotlib is missing, as the message ends.

    Raises:
        InputError: matplotlib is missing.
    """
    figure = require("matplotlib.figure", remedy).Figure(figsize=(width, height), dpi=100, layout="constrained")
    require("matplotlib.backends.backend_agg", remedy).FigureCanvasAgg(figure)
    return figure


def draw_figure(figure: Any) -> np.ndarray:
    """A figure of `new_figure` as a picture: uint8 H W 3, RGB."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
