"""The data type of a motion: one person's keypoints, frame by frame."""

import operator
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .wire_format import PRESENT_SCORE, decode_frames, encode_frames

BODY_JOINTS = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear", "left_toes", "right_toes"),
)
"""Names of the body's 20 joints: OpenPose's 18, then the middle of each foot's big and small toe."""

_SHAPES = {"body": (20,), "hands": (2, 21), "face": (68,)}


@dataclass(frozen=True, eq=False)
class MotionTrack:
    """One person's motion: body, hands and face keypoints of every frame.

    Coordinates are fractions of the canvas, (0, 0) its top left and (1, 1) its bottom right corner; they lie outside
    0 … 1 where the person leaves the picture. An absent point has NaN in both coordinates, and score 0. Points are made
    absent where a coordinate is not finite, or where the score is under 0.3 (as the public pose detection does).

    Arrays, sequences and torch tensors are accepted; all are copied to float64.

    Attributes:
        body: Body joints in the order of `BODY_JOINTS`, shape (frames, 20, 2).
        hands: Left, then right hand, shape (frames, 2, 21, 2): wrist, then four points a finger from thumb to little
            finger. None: all absent.
        face: The 68 face points, shape (frames, 68, 2). None: all absent.
        width: Width of the canvas, in pixels.
        height: Height of the canvas, in pixels.
        body_scores: Confidence of each joint, shape (frames, 20), about 0 … 1; None where not known.
        hands_scores: The same for hands, shape (frames, 2, 21).
        face_scores: The same for the face, shape (frames, 68).

    Raises:
        InputError: An array has another shape, there is no frame, or the canvas has no area.
    """

    body: np.ndarray
    hands: np.ndarray | None = None
    face: np.ndarray | None = None
    _: KW_ONLY
    width: int
    height: int
    body_scores: np.ndarray | None = None
    hands_scores: np.ndarray | None = None
    face_scores: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            object.__setattr__(self, name, _pixels(getattr(self, name), name))
        frames = None
        for part, shape in _SHAPES.items():
            points, scores = getattr(self, part), getattr(self, f"{part}_scores")
            if points is None and part != "body":
                points = np.full((frames, *shape, 2), np.nan)
            points = _array(points, part, (frames, *shape, 2))  # f … 2
            frames = len(points)
            present = np.isfinite(points).all(-1)  # f …
            if scores is not None:
                scores = _array(scores, f"{part}_scores", (frames, *shape))  # f …
                present &= np.isfinite(scores) & (scores >= PRESENT_SCORE)
                scores[~present] = 0
            points[~present] = np.nan
            object.__setattr__(self, part, points)
            object.__setattr__(self, f"{part}_scores", scores)

    @classmethod
    def from_pose_keypoints(cls, frames: Sequence[dict[str, Any]], person: int = 0) -> "MotionTrack":
        """Read one person from ComfyUI's `POSE_KEYPOINT` frames, or from OpenPose's people on a canvas.

        Missing keys, None and frames without the person give absent points. Bodies of 18 points (with
        `foot_keypoints_2d` beside them) and OpenPose's BODY_25 are read. Points scored under 0.3 are absent. Hands go
        to the wrist that their root lies on, whatever their name. Coordinates that are fractions already, as some packs
        write them, are recognised: on a canvas of more than 8 pixels a side, all points of all people and frames lie
        within −1 … 2 and spread over more than 0.05.

        Args:
            frames: One dictionary a frame: `canvas_width`, `canvas_height` (pixels; the first frame's is the track's)
                and `people`, each with flat lists of x, y, score in pixels.
            person: Which of a frame's people to take, from 0, by their place in each frame's list. `split_people` and
                `read_motion` follow people through time instead.

        Returns:
            The track, with scores.

        Raises:
            InputError: No frame, no person in any frame, no such person, no canvas, or a list of the wrong length.
        """
        return cls(**decode_frames(frames, person))

    def to_pose_keypoints(self) -> list[dict[str, Any]]:
        """Write ComfyUI's `POSE_KEYPOINT` frames, in pixels; `from_pose_keypoints` gives the same track back.

        A point without a known score has score 1, an absent one 0, 0, 0. Both toes of a foot stand at their middle, the
        only place known; heels are absent. A frame with no point has no people.

        Returns:
            One dictionary a frame: `canvas_width`, `canvas_height`, `people`.
        """
        return encode_frames(self)

    @property
    def present(self) -> np.ndarray:
        """Whether any body joint is present, for each frame: bool (frames,)."""
        return np.isfinite(self.body).all(-1).any(-1)  # f

    def crop(self, left: float, top: float, right: float, bottom: float) -> "MotionTrack":
        """Return the track as seen in a part of its canvas.

        Args:
            left: Left edge, as a fraction of the width; below 0 or above 1 shows more than the canvas.
            top: Top edge, as a fraction of the height.
            right: Right edge, as a fraction of the width.
            bottom: Bottom edge, as a fraction of the height.

        Returns:
            The track on a canvas of that part's size, in whole pixels. Points outside it are kept.

        Raises:
            InputError: The part has no area.
        """
        edges = np.array([left, top, right, bottom], np.float64)
        corner, size = edges[:2], edges[2:] - edges[:2]
        if not np.isfinite(edges).all() or not (size > 0).all():
            raise InputError(
                f"A crop from ({left}, {top}) to ({right}, {bottom}) has no area; give left < right and top < bottom, "
                "as fractions of the canvas."
            )
        width, height = (max(1, round(side)) for side in (size * (self.width, self.height)).tolist())
        points = {part: (getattr(self, part) - corner) / size for part in _SHAPES}
        return MotionTrack(**points, **self._scores(), width=width, height=height)

    def __len__(self) -> int:
        return len(self.body)

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> "MotionTrack":
        """Return one frame, a slice of the frames, or those at some places, as a track.

        Raises:
            IndexError: There is no such frame.
            InputError: No frame is left.
        """
        if not isinstance(index, slice) and np.ndim(index) == 0:
            start = range(len(self))[operator.index(index)]
            index = slice(start, start + 1)
        arrays = {part: getattr(self, part) for part in _SHAPES} | self._scores()
        cut = {name: array if array is None else array[index] for name, array in arrays.items()}
        return MotionTrack(**cut, width=self.width, height=self.height)

    def _scores(self) -> dict[str, np.ndarray | None]:
        return {f"{part}_scores": getattr(self, f"{part}_scores") for part in _SHAPES}


def _array(value: Any, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Copy to float64, checking the shape; None stands for any positive number of frames."""
    wanted = f"({', '.join('frames' if n is None else str(n) for n in shape)})"
    try:
        if hasattr(value, "detach"):  # a torch tensor, on any device and of any kind of number
            value = value.detach().cpu().double().numpy()
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is not an array of numbers ({error}); give one of shape {wanted}.") from error
    if array.ndim == len(shape) - 1 and array.shape == shape[1:]:
        raise InputError(f"{name} has shape {array.shape}, one frame without the frame axis; add it: {name}[None].")
    if array.ndim != len(shape) or array.shape[1:] != shape[1:] or shape[0] not in (None, len(array)):
        raise InputError(f"{name} has shape {array.shape}; give an array of shape {wanted}.")
    if len(array) == 0:
        raise InputError(f"{name} has shape {array.shape}: no frame; a motion needs one or more.")
    return array


def _pixels(value: Any, name: str) -> int:
    try:
        side = round(float(value))
    except (TypeError, ValueError, OverflowError):
        side = 0
    if side < 1:
        raise InputError(f"The canvas's {name} is {value!r}; give its size in pixels, 1 or more.")
    return side
