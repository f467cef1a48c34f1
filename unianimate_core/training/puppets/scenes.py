"""Random backgrounds and light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Scene:
    """Where a person stands, and the camera that looks on.

    Attributes:
        background: H W 3, RGB 0-1, float32.
        light: x, y, z of the direction to the light, of length 1.
        exposure: RGB factors of the whole picture.
        contrast: Of the camera, about 0.75.
        softness: Of the camera's lens, a deviation in pixels, about 1 in 192.
    """

    background: np.ndarray
    light: np.ndarray
    exposure: np.ndarray
    contrast: float
    softness: float

    def photograph(self, colours: np.ndarray) -> np.ndarray:
        """What the camera makes of colours H W 3 (0-1, float32): uint8 H W 3."""
        soft = cv2.GaussianBlur(colours * self.exposure, (0, 0), self.softness, borderType=cv2.BORDER_REFLECT)
        return (np.clip(0.5 + self.contrast * (soft - 0.5), 0, 1) * 255 + 0.5).astype(np.uint8)


def random_scene(random: np.random.Generator, width: int, height: int, clothes: np.ndarray) -> Scene:
    """A wall and a floor with a few things on the wall, drawn from a generator.

    Args:
        random: Decides.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        clothes: n 3, RGB 0-1; wall and floor are of other colours.
    """
    wall, floor = _apart(random, clothes), _apart(random, clothes)
    horizon = random.uniform(0.55, 0.85) * height
    y = np.arange(height, dtype=np.float32)[:, None] + 0.5
    x = np.arange(width, dtype=np.float32)[None] + 0.5
    slope = horizon + random.uniform(-0.08, 0.08) * (x - width / 2)
    above = np.clip(slope - y + 0.5, 0, 1)[..., None]  # H W 1
    fade = 1 + random.uniform(-0.25, 0.25) * (y / height - 0.5)[..., None]
    across = 1 + random.uniform(-0.2, 0.2) * (x / width - 0.5)[..., None]
    picture = (above * wall + (1 - above) * floor * (0.85 + 0.3 * (y / height))[..., None]) * fade * across
    for _ in range(random.integers(0, 5)):
        _add_thing(picture, random, horizon)
    clouds = cv2.resize(
        random.normal(0, 0.03, (6, 4, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    angle, tilt = random.uniform(0, 2 * np.pi), random.uniform(0.3, 0.8)
    light = np.array((tilt * np.cos(angle), -abs(tilt * np.sin(angle)), np.sqrt(1 - tilt**2)))
    exposure = random.uniform(0.85, 1.1) * random.uniform(0.95, 1.05, 3)
    background = np.clip(picture + clouds, 0, 1).astype(np.float32)
    contrast, softness = random.uniform(0.65, 0.85), random.uniform(0.85, 1.15) * height / 192
    return Scene(background, light, exposure.astype(np.float32), contrast, softness)


def _apart(random: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    """Of a few muted colours the one that differs most from colours n 3."""
    candidates = np.stack([_muted(random) for _ in range(4)])  # 4 3
    distance = np.linalg.norm(candidates[:, None] - colours[None], axis=-1).min(1)
    return candidates[distance.argmax()]


def _muted(random: np.random.Generator) -> np.ndarray:
    grey = random.uniform(0.2, 0.9)
    return np.clip(grey + random.uniform(-0.18, 0.18, 3), 0.05, 0.97)


def _add_thing(picture: np.ndarray, random: np.random.Generator, horizon: float) -> None:
    """A soft-edged picture, window, pillar or ball."""
    height, width = picture.shape[:2]
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    centre = random.uniform(0, width), random.uniform(0.05 * height, horizon)
    half = random.uniform(0.06, 0.22) * width, random.uniform(0.05, 0.2) * height
    u, v = np.abs(x - centre[0]) / half[0], np.abs(y - centre[1]) / half[1]
    distance = (np.hypot(u, v) if random.random() < 0.4 else np.maximum(u, v + 0 * u)) - 1
    alpha = np.clip(0.5 - distance * min(half) / 3, 0, 1)[..., None]
    picture += alpha * (_muted(random) - picture)
