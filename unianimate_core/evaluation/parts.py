"""Are the limbs where the pose says, and is the person the same? Measured on synthetic people, whose parts are known.

Both measures look at colours alone, so they need no detector that might itself be wrong, and the same measure taken of
the truth says how far they can be trusted: that is the row "truth" of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
import torch

from ..errors import InputError
from ..optional import EVALUATE_EXTRA, require
from ..video import fit_picture

LIMB_WORDS = ("arm", "leg", "thigh", "calf", "shin")
ALIKE = 15.0
"""Lab units (CIE 1976 ΔE): parts whose mean colours are closer count as one, as shading alone differs as much."""
LEAST_PIXELS = 16
"""A part with fewer true pixels in a frame is not measured there."""


@dataclass(frozen=True)
class Parts:
    """What each pixel of a true video shows.

    Attributes:
        labels: uint8 f H W; index into ``names``, 0 for the background.
        names: Of the labels. Those with arm, leg, thigh, calf or shin in them are limbs.
        background: uint8 H W 3; the scene without the person.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    background: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def cut(self, start: int, stop: int) -> Parts:
        """The frames from start to stop."""
        return Parts(self.labels[start:stop], self.names, self.background)

    def fit(self, width: int, height: int) -> Parts:
        """Crop and resize as `fit_picture` does with the video; labels by the nearest pixel."""
        picture = torch.from_numpy(self.background) / 255
        fitted, (left, top, right, bottom) = fit_picture(picture, width, height)
        rows, columns = self.labels.shape[1:]
        y = (top + (np.arange(height) + 0.5) / height * (bottom - top)) * rows
        x = (left + (np.arange(width) + 0.5) / width * (right - left)) * columns
        labels = self.labels[:, y.astype(int)[:, None], x.astype(int)]  # f height width
        return Parts(labels, self.names, (fitted * 255).round().to(torch.uint8).numpy())


def read_parts(path: str | Path) -> Parts:
    """Read the parts of a video from an .npz file with labels, names and background, as in `Parts`.

    Raises:
        InputError: The file is damaged, lacks an array, or the arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            labels, names, background = (arrays[name] for name in ("labels", "names", "background"))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}): give .npz with labels, names and background") from error
    if labels.ndim != 3 or labels.dtype != np.uint8 or 0 in labels.shape:
        raise InputError(f"{path}: labels must be uint8 f H W, not {labels.dtype} {labels.shape}")
    if background.shape != (*labels.shape[1:], 3) or background.dtype != np.uint8:
        wanted = (*labels.shape[1:], 3)
        raise InputError(f"{path}: background must be uint8 {wanted}, not {background.dtype} {background.shape}")
    if names.ndim != 1 or names.dtype.kind != "U" or labels.max() >= len(names):
        raise InputError(f"{path}: names must be a list of {labels.max() + 1} or more strings, one for each label")
    return Parts(labels, tuple(names.tolist()), background)


class PartMeter:
    """Measures videos against the parts of their truth.

    *Colours.* The colour of part k is the mean Lab colour of its pixels over all frames of the truth. Parts whose
    colours are less than `ALIKE` apart, directly or by way of others, are one group.

    *Limb IoU.* Each pixel of a frame belongs to the nearest, in Lab, of the background's colour at that pixel and the
    colours of the parts. For each group with limbs in it, T are the pixels whose true part is a limb of the group, C
    those that belong to the group; pixels whose true part is of the group but no limb (a bare arm before a face) cannot
    be told apart and are left out. A frame's limb IoU is the mean of |C ∩ T| / |C ∪ T| over the groups with at least
    `LEAST_PIXELS` pixels in T.

    *Person IoU.* |C ∩ T| / |C ∪ T| with C the pixels that belong to a part, T those whose label is not 0.

    *Identity.* For each part, the CIEDE2000 distance of the mean Lab colours of video and truth inside the part's true
    mask, less one pixel at its rim. A frame's is the mean over the parts with `LEAST_PIXELS` such pixels.

    Args:
        parts: Of the truth, in its size.
        truth: uint8 f H W 3.

    Raises:
        InputError: Parts and truth differ in length or size, no part is to be seen, or scikit-image is missing.
    """

    def __init__(self, parts: Parts, truth: np.ndarray) -> None:
        self._colour = require("skimage.color", f"scikit-image, or {EVALUATE_EXTRA}")
        if parts.labels.shape != truth.shape[:3]:
            raise InputError(f"the parts' labels are {parts.labels.shape}, the video is {truth.shape[:3]} (f H W)")
        self.parts = parts
        truth_lab = [self._lab(frame) for frame in truth]
        self.colours: dict[int, np.ndarray] = {}
        counts = np.bincount(parts.labels.ravel(), minlength=len(parts.names))
        for part in np.flatnonzero(counts[1:]) + 1:
            chosen = (lab[labels == part] for lab, labels in zip(truth_lab, parts.labels, strict=True))
            self.colours[int(part)] = sum(pixels.sum(0, dtype=np.float64) for pixels in chosen) / counts[part]
        if not self.colours:
            raise InputError("the parts show nobody: every label is 0")
        self.groups = _groups(self.colours)
        limbs = {part for part, name in enumerate(parts.names) if any(word in name for word in LIMB_WORDS)}
        self._limbs = [(group, group & limbs) for group in self.groups if group & limbs]
        self._background = self._lab(parts.background)
        rim = np.ones((3, 3), np.uint8)
        self._inside: list[dict[int, tuple[np.ndarray, np.ndarray]]] = []  # part → mask, true colour; for each frame
        for lab, labels in zip(truth_lab, parts.labels, strict=True):
            # Outside the picture counts as the same part: a part cut off by the border has no rim there.
            masks = {part: cv2.erode((labels == part).astype(np.uint8), rim).astype(bool) for part in self.colours}
            seen = {part: mask for part, mask in masks.items() if mask.sum() >= LEAST_PIXELS}
            self._inside.append({part: (mask, lab[mask].mean(0)) for part, mask in seen.items()})

    def group_names(self) -> list[list[str]]:
        """Names of the parts of each group, for the report."""
        return [[self.parts.names[part] for part in sorted(group)] for group in self.groups]

    def measure(self, video: np.ndarray) -> dict[str, np.ndarray]:
        """``limb_iou`` and ``person_iou``, 0-1, and ``identity``, ΔE, of a video uint8 f H W 3: float64 f, NaN where
        nothing is to be measured.
        """  # noqa: D205
        rows = []
        for frame, labels, inside in zip(video, self.parts.labels, self._inside, strict=True):
            lab = self._lab(frame)
            belongs = self._classify(lab)
            limbs = [self._limb_iou(belongs, labels, group, limb) for group, limb in self._limbs]
            ious = [iou for iou in limbs if iou is not None]
            differences = [
                float(self._colour.deltaE_ciede2000(lab[mask].mean(0), true)) for mask, true in inside.values()
            ]
            rows.append((_mean(ious), _iou(belongs > 0, labels > 0), _mean(differences)))
        return dict(zip(("limb_iou", "person_iou", "identity"), np.array(rows, np.float64).T, strict=True))

    def _lab(self, picture: np.ndarray) -> np.ndarray:
        return self._colour.rgb2lab(picture.astype(np.float32) / 255)

    def _classify(self, lab: np.ndarray) -> np.ndarray:
        """The part that each pixel belongs to, h w; 0 for the background."""
        nearest = ((lab - self._background) ** 2).sum(-1)
        belongs = np.zeros(lab.shape[:2], np.uint8)
        for part, colour in self.colours.items():
            distance = ((lab - colour.astype(np.float32)) ** 2).sum(-1)
            closer = distance < nearest
            belongs[closer], nearest[closer] = part, distance[closer]
        return belongs

    @staticmethod
    def _limb_iou(belongs: np.ndarray, labels: np.ndarray, group: set[int], limbs: set[int]) -> float | None:
        true = np.isin(labels, list(limbs))
        if true.sum() < LEAST_PIXELS:
            return None
        unknown = np.isin(labels, list(group - limbs))
        return _iou(np.isin(belongs, list(group)) & ~unknown, true)


def _groups(colours: dict[int, np.ndarray]) -> list[set[int]]:
    """Parts of like colours, joined as long as any two of different groups are alike."""
    groups: list[set[int]] = []
    for part, colour in colours.items():
        alike = [g for g in groups if any(np.linalg.norm(colours[other] - colour) < ALIKE for other in g)]
        groups = [group for group in groups if group not in alike] + [{part}.union(*alike)]
    return groups


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else float("nan")


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
