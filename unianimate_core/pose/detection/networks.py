"""The two networks' files: ONNX or TorchScript, recognised by what they take and give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from .boxes import count_cells
from .points import POINTS

Shape = tuple[int | None, ...]
"""Sides of an array, None where any will do."""


@dataclass(frozen=True)
class Kind:
    """One of the two networks.

    Attributes:
        title: What messages call it.
        file: Its file's usual name.
        size: Height and width of its input, where the file leaves them open.
        answers: Shapes of its outputs, for a batch of any size of pictures of height and width.
    """

    title: str
    file: str
    size: tuple[int, int]
    answers: Callable[[int, int], list[Shape]]

    def fits(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> bool:
        """Whether a network with these inputs and outputs is of this kind."""
        if len(inputs) != 1 or not _match(inputs[0], (None, 3, None, None)):
            return False
        wanted = self.answers(*self.input_size(inputs[0]))
        return len(outputs) == len(wanted) and all(map(_match, outputs, wanted))

    def input_size(self, shape: Shape) -> tuple[int, int]:
        """Height and width of the input."""
        height, width = (side or usual for side, usual in zip(shape[2:], self.size, strict=True))
        return height, width


def _match(shape: Shape, wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, wanted, strict=True)
    )


DETECTOR = Kind(
    "the person detector", "yolox_l.onnx", (640, 640), lambda height, width: [(None, count_cells(height, width), 85)]
)
KEYPOINTS = Kind(
    "the keypoint network",
    "dw-ll_ucoco_384.onnx",
    (384, 288),
    lambda height, width: [(None, POINTS, 2 * width), (None, POINTS, 2 * height)],
)


def other_kind(kind: Kind) -> Kind:
    """The other one of the two."""
    return KEYPOINTS if kind is DETECTOR else DETECTOR


def check_kind(path: Path, kind: Kind, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> None:
    """Make sure that a file holds the network that is wanted.

    Raises:
        InputError: It holds the other one, or something else.
    """
    if kind.fits(inputs, outputs):
        return
    other = other_kind(kind)
    if other.fits(inputs, outputs):
        raise InputError(
            f"{path} is {other.title}, not {kind.title}: the two files may be swapped. Give {kind.file} here, and "
            f"{other.file} for {other.title}."
        )
    shown = [", ".join(map(_in_words, shapes)) or "nothing" for shapes in (inputs, outputs)]
    wanted = ", ".join(map(_in_words, kind.answers(*kind.size)))
    raise InputError(
        f"{path} is not {kind.title} of DWPose but another network: it takes {shown[0]} and gives {shown[1]}, not "
        f"{_in_words((None, 3, *kind.size))} and {wanted}. Give {kind.file}."
    )


def _in_words(shape: Shape) -> str:
    return " × ".join("n" if side is None else str(side) for side in shape) or "a number"


class Network:
    """A loaded network, which takes float32 pictures n 3 h w and gives float32 arrays n ….

    Attributes:
        path: Its file.
        kind: Which of the two it is.
        place: Where it runs: an onnxruntime provider, or TorchScript's device in words.
        on_cpu: Whether that is the processor.
        height: Of its input.
        width: The same.
        batch: How many pictures it takes at once; None: any number.
    """

    path: Path
    kind: Kind
    place: str
    on_cpu: bool
    height: int
    width: int
    batch: int | None

    def at_once(self, limit: int) -> int:
        """How many pictures to give it at once, where more than the limit are not wanted."""
        return self.batch or limit

    def run(self, pictures: np.ndarray) -> list[np.ndarray]:
        """Run on n pictures, no more than `at_once` allows.

        Raises:
            InputError: What it gives has not the shape that it should have.
        """
        count = len(pictures)
        missing = self._padded(count) - count
        if missing:
            pictures = np.concatenate([pictures, np.zeros((missing, *pictures.shape[1:]), np.float32)])
        outputs = self._run(pictures)
        wanted = self.kind.answers(self.height, self.width)
        shapes = [(len(pictures), *shape[1:]) for shape in wanted]
        if [output.shape for output in outputs] != shapes:
            shown = ", ".join(_in_words(output.shape) for output in outputs)
            raise InputError(
                f"{self.path} is not {self.kind.title} of DWPose: it gave {shown} instead of "
                f"{', '.join(map(_in_words, shapes))}. Give {self.kind.file}."
            )
        return [output[:count] for output in outputs]

    def release(self) -> None:
        """Give back a graphics card's memory, where the network can be started again in a second or two.

        That is done when it is next run. On the processor, and where starting takes longer, nothing happens.
        """
        raise NotImplementedError

    def _padded(self, count: int) -> int:
        if self.batch:
            return self.batch
        # A GPU prepares itself anew for every number of pictures: a few numbers do.
        return count if self.on_cpu else 1 << (count - 1).bit_length()

    def _run(self, pictures: np.ndarray) -> list[np.ndarray]:
        raise NotImplementedError
