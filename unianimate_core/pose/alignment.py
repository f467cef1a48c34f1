"""A motion put on another person: their proportions, size and place."""

from dataclasses import replace
from typing import Literal

import numpy as np

from ..errors import InputError
from .fitting import fit_track
from .keypoints import MotionTrack
from .limbs import MIRRORED, NECK, NOSE, bone_lengths, scale_bones, torso_length

Mode = Literal["paper", "robust", "scale and place", "none"]
MODES: tuple[Mode, ...] = ("paper", "robust", "scale and place", "none")

_PARTS = ("body", "hands", "face")
_SHOULDERS, _HIPS, _EYES, _EARS = [2, 5], [8, 11], [14, 15], [16, 17]  # right, left
# A bone is named by the joint that it ends in. The paper scales those of head, shoulders, arms and legs; feet, and the
# way from the neck to the hips, only with the whole person.
_LONG_BONES = [NOSE, 3, 4, 6, 7, 9, 10, 12, 13]
_PAPER_BONES = [*_LONG_BONES, *_SHOULDERS, *_EYES, *_EARS]
_ROBUST_BONES = [*_PAPER_BONES, *_HIPS]
_OTHER_HALVES = np.array([0, 1, 2, 4, 3, 5, 7, 6, 8, 10, 9, 11, 13, 12, *range(14, 20)])  # the forearm's: the upper arm
# What the two persons are laid upon each other by: the first of these that both have, the middle of its joints.
_PLACES = [[NECK], _SHOULDERS, _HIPS, [NOSE], *([joint] for joint in range(20))]

# The paper's ratios are taken as they are, but for those of a limb that points at the camera in the one frame that they
# are measured in: none of a limb in plain view comes near this.
_PAPER_LIMIT = 50.0
# Compared with the torso, limbs differ by less: a grown-up's legs are 1.5 times a toddler's so, and about 2.5 times
# those of a figure with a large head. Beyond it a limb is foreshortened, or a joint wrong.
_ROBUST_LIMIT = 2.5
_TORSO_LIMIT = 2.0  # the torso tells a person's size, unless it differs from what all other limbs say by this factor
_SURE_SCORE = 0.5
_LONGEST = 0.75  # quantile over the frames: the median of the half of them that show a limb longest
_SHORTEST = 1e-3  # of the canvas's longer side, or of another person; what is shorter tells nothing of a length
_FARTHEST = 1e4  # canvases; keeps what is computed finite, whatever was detected


def align_motion(driving: MotionTrack, reference: MotionTrack, mode: Mode = "paper") -> MotionTrack:
    """Give a motion the proportions, size and place of the person in the reference picture.

    The two persons are laid upon each other by the neck, in the first driving frame that shows it: "the first frame"
    below. Where one of them never shows the neck, the first of these that both do is taken: the middle of the
    shoulders, that of the hips, the nose, any other joint.

    - ``paper``: as the weights were trained, and as the public code does, in fractions of the canvas. In the first
      frame the shoulders get the reference's signed width (so that a person seen from behind is mirrored), the torso
      its height, every bone of head, arms and legs its length; all frames are scaled by the same ratios, the face by
      the first two only. A width that is absent or beyond belief takes the height's ratio and the other way round (in
      pixels), then that of the spread of all joints that both have, then 1. A bone takes the mirrored bone's, then 1.
      Beyond belief is a ratio outside 1/50 … 50, compared with the spread: that of a limb pointing at the camera.
    - ``robust``: in pixels, so that a canvas of another aspect does not distort. One size for the whole person: the
      ratio of the torsos' lengths, or the median of the other limbs' ratios, where there is no torso or where it
      differs from them by more than a factor of 2. Then one ratio for each bone and its mirrored one, compared with
      that; the face follows the nose, scaled as the eyes' distance from it. Lengths are measured over all frames in
      which both joints are sure (scored 0.5 or more; any, where none is): the median of the half of them that shows
      the limb longest, on the side of the body that shows it longer, as a limb seen at a slant only looks shorter. A
      ratio outside 1/2.5 … 2.5 (more than people and figures differ) or absent takes that of the limb's other half,
      as the forearm's for the upper arm, then 1.
    - ``scale and place``: only the size and the place of ``robust``, and the driving person's own proportions.
    - ``none``: only put on the reference's canvas, undistorted and centred, as `fit_track` does.

    An absent joint stays absent, a present one present. Within a limb an absent joint is passed over (see
    `limbs.scale_bones`); gaps of a few frames are best filled before.

    Args:
        driving: The motion.
        reference: The person to fit it to. The first frame that shows one counts; only the lengths of ``robust`` and
            ``scale and place`` are measured over all frames.
        mode: One of `MODES`.

    Returns:
        The motion on the reference's canvas, with the driving motion's scores.

    Raises:
        InputError: There is nobody in the motion or in the reference, or the mode is unknown.
    """
    if mode not in MODES:
        raise InputError(f"mode is {mode!r}: choose one of {', '.join(MODES)}")
    for name, track in (("motion", driving), ("reference pose", reference)):
        if not track.present.any():
            raise InputError(f"The {name} shows nobody in any of its {len(track)} frames; give another one.")
    driving, reference = _within_reach(driving), _within_reach(reference)
    standing = reference[int(reference.present.argmax())]
    if mode == "none":
        fitted = fit_track(driving, standing.width, standing.height)
        return replace(fitted, width=standing.width, height=standing.height)

    place, first = _common_place(driving.body, standing.body[0])
    with np.errstate(divide="ignore", invalid="ignore"):  # a ratio that is not finite is replaced
        if mode == "paper":
            points = _as_in_paper(driving, standing, first)
        else:
            points = _robustly(driving, reference, standing, first, limbs=mode == "robust")
    if place:
        points = [part + (standing.body[0, place] - points[0][first, place]).mean(0) for part in points]
    return replace(driving, **dict(zip(_PARTS, points, strict=True)), width=standing.width, height=standing.height)


def _common_place(driving: np.ndarray, reference: np.ndarray) -> tuple[list[int], int]:
    """Return the joints to lay driving (f 20 2) upon reference (20 2) by, and the first frame that shows them.

    No joint, and the first frame with a person, where they have none in common.
    """
    seen = np.isfinite(driving).all(-1) & np.isfinite(reference).all(-1)  # f 20
    for place in _PLACES:
        shown = seen[:, place].all(-1)  # f
        if shown.any():
            return place, int(shown.argmax())
    return [], int(np.isfinite(driving).all(-1).any(-1).argmax())


def _as_in_paper(driving: MotionTrack, standing: MotionTrack, first: int) -> list[np.ndarray]:
    """Return body, hands and face in the standing person's proportions, in fractions, not yet in place."""
    target = standing.body[0]  # 20 2
    scale = _width_and_height(driving, standing, first)
    points = [getattr(driving, part) * scale for part in _PARTS]
    lengths, wanted = bone_lengths(points[0][first]), bone_lengths(target)  # 20
    ratios = _believed(wanted / lengths, _PAPER_BONES, _PAPER_LIMIT)
    ratios = _first_known(ratios, ratios[MIRRORED], 1.0)
    return list(scale_bones(*points, ratios, _weights(lengths, wanted)))


def _width_and_height(driving: MotionTrack, standing: MotionTrack, first: int) -> np.ndarray:
    """Return what x and y are multiplied by (2) to give the first frame's person the standing one's torso."""
    persons = np.stack([standing.body[0] * _size(standing), driving.body[first] * _size(driving)])  # 2 20 2, pixels
    persons[:, np.isnan(persons).any((0, 2))] = np.nan
    shoulders, hips = (np.isfinite(persons[0, pair, 0]) for pair in (_SHOULDERS, _HIPS))
    width = persons[:, 5, 0] - persons[:, 2, 0]  # 2, signed
    upper = np.array(_SHOULDERS)[shoulders] if shoulders.any() else [NECK]
    lower = np.array(_HIPS)[hips] if hips.any() else _HIPS
    height = persons[:, lower, 1].mean(1) - persons[:, upper, 1].mean(1)  # 2, signed

    ratios = np.array([width[0] / width[1], height[0] / height[1]])
    spread = _spread_ratio(*persons)
    compared = ratios / (spread if np.isfinite(spread) else 1.0)
    ratios[~((abs(compared) > 1 / _PAPER_LIMIT) & (abs(compared) < _PAPER_LIMIT))] = np.nan
    pixels = _size(standing) / _size(driving)
    return _first_known(ratios, abs(ratios[::-1]), spread, pixels) / pixels


def _robustly(
    driving: MotionTrack, reference: MotionTrack, standing: MotionTrack, first: int, limbs: bool
) -> list[np.ndarray]:
    """Return body, hands and face in the reference's size, and proportions if `limbs`; in fractions, centred."""
    lengths, wanted = _longest(driving), _longest(reference)  # 22: bones, torso, shoulders
    ratios = wanted / lengths
    old, new = _size(driving), _size(standing)
    spread = _spread_ratio(standing.body[0] * new, driving.body[first] * old)
    others = _median(ratios[[*_LONG_BONES, 21]], ratios[[*_EYES, *_EARS]], spread)
    torso = ratios[20]
    if np.isfinite(others) and not 1 / _TORSO_LIMIT <= torso / others <= _TORSO_LIMIT:
        torso = np.nan
    scale = float(_first_known(torso, others, max(new / old)))

    points = [(getattr(driving, part) - 0.5) * old * scale for part in _PARTS]  # pixels from the canvas's middle
    if limbs:
        believed = _believed(ratios[:20] / scale, _ROBUST_BONES, _ROBUST_LIMIT)
        believed = _first_known(believed, believed[_OTHER_HALVES], 1.0)
        weights = _weights(lengths[:20] * scale, wanted[:20])
        points = list(scale_bones(*points, believed, weights, face_ratio=believed[_EYES].mean()))
    return [part / new + 0.5 for part in points]


def _longest(track: MotionTrack) -> np.ndarray:
    """Return how long a person's bones (20), torso and distance of shoulders are at their longest: 22, pixels."""
    body = track.body * _size(track)  # f 20 2
    sure = body if track.body_scores is None else np.where(track.body_scores[..., None] >= _SURE_SCORE, body, np.nan)

    def quantiles(body: np.ndarray) -> np.ndarray:
        shoulders = np.linalg.norm(body[:, 5] - body[:, 2], axis=-1)  # f
        lengths = np.column_stack([bone_lengths(body), torso_length(body), shoulders])  # f 22
        lengths[~(lengths > _SHORTEST * max(_size(track)))] = np.nan
        lengths.sort(axis=0)  # those absent come last
        row = (_LONGEST * (np.isfinite(lengths).sum(0) - 1).clip(0)).astype(int)
        return lengths[row, np.arange(22)]

    longest = _first_known(quantiles(sure), quantiles(body))
    longest[:20] = np.fmax(longest[:20], longest[MIRRORED])
    return longest


def _spread_ratio(target: np.ndarray, body: np.ndarray) -> float:
    """Return how much farther apart a target's joints (20 2) are than a body's, over those in both; NaN if unknown."""
    both = np.isfinite(target).all(-1) & np.isfinite(body).all(-1)
    if both.sum() < 2:
        return np.nan
    spreads = [np.linalg.norm(person[both] - person[both].mean(0)) for person in (target, body)]
    ratio = float(spreads[0] / spreads[1])
    return ratio if _SHORTEST < ratio < 1 / _SHORTEST else np.nan


def _believed(ratios: np.ndarray, bones: list[int], limit: float) -> np.ndarray:
    """Return the ratios (20) of these bones that are within the limit; NaN for those beyond it, 1 for other bones."""
    believed = np.ones(20)
    believed[bones] = np.where((ratios[bones] > 1 / limit) & (ratios[bones] < limit), ratios[bones], np.nan)
    return believed


def _weights(lengths: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return what bones (20) weigh where several are scaled at once: their length, or that of the other person's."""
    known = _first_known(np.where(lengths > 0, lengths, np.nan), np.where(others > 0, others, np.nan))
    return _first_known(known, _median(known), 1.0)


def _median(*choices: np.ndarray | float) -> float:
    """Return the median of the known numbers of the first choice that has any; NaN if none has."""
    return next((float(np.nanmedian(numbers)) for numbers in choices if np.isfinite(numbers).any()), np.nan)


def _first_known(*choices: np.ndarray | float) -> np.ndarray:
    """Return, for each number, the first choice that is not NaN."""
    choices = np.broadcast_arrays(*choices)
    known = choices[-1].copy()
    for choice in choices[-2::-1]:
        known = np.where(np.isnan(choice), known, choice)
    return known


def _within_reach(track: MotionTrack) -> MotionTrack:
    return replace(track, **{part: np.clip(getattr(track, part), -_FARTHEST, _FARTHEST) for part in _PARTS})


def _size(track: MotionTrack) -> np.ndarray:
    return np.array([track.width, track.height], np.float64)
