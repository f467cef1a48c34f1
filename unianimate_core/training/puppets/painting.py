"""Paints shaded shapes into a picture: capsules for limbs, hulls for clothes, ellipses for heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

AMBIENT = 0.62

Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Share 0-1 of the second colour at (along, across), both in torso lengths."""


@dataclass(frozen=True)
class Paint:
    """What a shape is covered with: one or two colours, RGB 0-1, and the pattern that mixes them."""

    colour: np.ndarray
    second: np.ndarray | None = None
    pattern: Pattern | None = None


@dataclass(frozen=True)
class Canvas:
    """A picture that is being painted.

    Attributes:
        colours: H W 3, RGB 0-1, float32.
        labels: H W, uint8; which part covers each pixel, 0 where none does.
        unit: Torso length in pixels, the unit of patterns.
        light: x, y, z of the direction to the light, of length 1; z points at the viewer.
    """

    colours: np.ndarray
    labels: np.ndarray
    unit: float
    light: np.ndarray

    def capsule(self, a: np.ndarray, b: np.ndarray, radii: tuple[float, float], paint: Paint, label: int) -> None:
        """A limb from point a to point b (x, y in pixels), as round as a cylinder; radii at both ends, in pixels."""
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return
        region, x, y = self._region(np.stack((a, b)), max(radii))
        if x.size == 0:
            return
        axis = b - a
        length = max(float(np.hypot(*axis)), 1e-6)
        along = (x - a[0]) * (axis[0] / length) + (y - a[1]) * (axis[1] / length)  # pixels from a
        t = np.clip(along / length, 0, 1)
        radius = radii[0] + t * (radii[1] - radii[0])
        dx, dy = x - (a[0] + t * axis[0]), y - (a[1] + t * axis[1])
        distance = np.hypot(dx, dy)
        across = (dx * -axis[1] + dy * axis[0]) / length
        self._cover(region, distance - radius, (dx / radius, dy / radius), (along, across), paint, label)

    def ellipse(self, centre: np.ndarray, up: np.ndarray, radii: tuple[float, float], paint: Paint, label: int) -> None:
        """An ellipse; ``up`` is the direction of the second radius (length 1)."""
        if not (np.isfinite(centre).all() and np.isfinite(up).all()):
            return
        region, x, y = self._region(centre[None], max(radii))
        if x.size == 0:
            return
        along = (x - centre[0]) * up[0] + (y - centre[1]) * up[1]
        across = (x - centre[0]) * -up[1] + (y - centre[1]) * up[0]
        norm = np.hypot(across / radii[0], along / radii[1])
        normal = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
        self._cover(region, (norm - 1) * min(radii), normal, (along, across), paint, label)

    def hull(self, points: np.ndarray, radius: float, paint: Paint, label: int) -> None:
        """The convex hull of points n 2, widened by a radius; as round as a barrel from side to side."""
        points = points[np.isfinite(points).all(-1)].astype(np.float32)
        if len(points) < 3:
            return
        corners = cv2.convexHull(points)[:, 0]  # n 2
        region, x, y = self._region(corners, radius)
        if x.size == 0 or len(corners) < 3:
            return
        edges = np.roll(corners, -1, axis=0) - corners
        normals = np.stack((edges[:, 1], -edges[:, 0]), axis=1) / np.maximum(np.hypot(*edges.T), 1e-6)[:, None]
        if cv2.contourArea(corners, oriented=True) < 0:
            normals = -normals
        distance = np.full(x.shape, -np.inf, np.float32)
        for corner, normal in zip(corners, normals, strict=True):
            distance = np.maximum(distance, (x - corner[0]) * normal[0] + (y - corner[1]) * normal[1])
        middle = corners.mean(0)
        half = max(float(np.ptp(corners[:, 0])) / 2 + radius, 1e-6)
        across, along = x - middle[0], y - corners[:, 1].min()
        self._cover(region, distance - radius, (across / half, 0 * across), (along, across), paint, label)

    def _region(self, points: np.ndarray, margin: float) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        height, width = self.labels.shape
        low = np.maximum(np.floor(points.min(0) - margin - 1), 0).astype(int)
        high = np.minimum(np.ceil(points.max(0) + margin + 2), (width, height)).astype(int)
        x = np.arange(low[0], high[0], dtype=np.float32)[None] + 0.5
        y = np.arange(low[1], high[1], dtype=np.float32)[:, None] + 0.5
        region = slice(low[1], max(low[1], high[1])), slice(low[0], max(low[0], high[0]))
        return region, *np.broadcast_arrays(x, y)

    def _cover(
        self,
        region: tuple[slice, slice],
        distance: np.ndarray,
        normal: tuple[np.ndarray, np.ndarray],
        place: tuple[np.ndarray, np.ndarray],
        paint: Paint,
        label: int,
    ) -> None:
        """Blend a shape in; the edge is soft over one pixel, the light falls on a round surface (Lambert)."""
        nx, ny = normal
        nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
        lit = np.clip(nx * self.light[0] + ny * self.light[1] + nz * self.light[2], 0, 1)
        shade = (AMBIENT + (1 - AMBIENT) * lit)[..., None]
        colour = paint.colour
        if paint.pattern is not None and paint.second is not None:
            share = paint.pattern(place[0] / self.unit, place[1] / self.unit)[..., None]
            colour = colour + share * (paint.second - colour)
        alpha = np.clip(0.5 - distance, 0, 1)
        target = self.colours[region]
        target += alpha[..., None] * (colour * shade - target)
        self.labels[region][alpha >= 0.5] = label
