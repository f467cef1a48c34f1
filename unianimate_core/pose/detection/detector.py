"""DWPose (arXiv 2307.15880): where people are, then where each one's joints are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from .boxes import decode_boxes, letterbox
from .files import load_network
from .networks import DETECTOR, KEYPOINTS
from .people import NobodyFound, People
from .points import crop_person, find_best, frame_people, place_points
from .providers import warn_once
from .read_ahead import map_read_ahead

logger = logging.getLogger(__name__)

MOST_PIXELS = 32766
"""Sides of a picture beyond this cannot be cut out of by OpenCV."""

# Frames and people that go through a network together. A processor gains little from many, and holds them in its time.
_FRAMES_CPU, _PEOPLE_CPU, _WORKERS_CPU = 2, 8, 4
_FRAMES_GPU, _PEOPLE_GPU, _WORKERS_GPU = 8, 16, 2

# Beside its weights, of each network with so many pictures: the largest layers' inputs and outputs (of 640 × 640
# pixels, 150 MB for each picture) and the workspaces of cuDNN. Counted, not measured; rather too much.
_WORKING_MEMORY = 1 << 30


class PoseDetector:
    """Finds people and their 134 keypoints in pictures, with DWPose's two networks.

    Args:
        detector_path: The person detector, ``yolox_l.onnx``, or its TorchScript version.
        keypoints_path: The keypoint network, ``dw-ll_ucoco_384.onnx``, or its TorchScript version.
        providers: onnxruntime's, tried in this order, by their names with or without "ExecutionProvider" at the end.
            None: CUDA, TensorRT, DirectML, CoreML, CPU, what is installed of them. TorchScript files run by PyTorch, on
            CUDA or the CPU.

    Attributes:
        providers: Where the networks run, best first, without doubles: ``["CUDAExecutionProvider"]``.
        device_note: Why they run in a slower place than they could and what to install; None where they do not. It is
            also logged as a warning, once.

    Raises:
        InputError: A file is missing, damaged, the other one or something else, a provider is not installed, or
            onnxruntime is missing.
    """

    providers: list[str]
    device_note: str | None

    def __init__(
        self, detector_path: str | Path, keypoints_path: str | Path, providers: Sequence[str] | None = None
    ) -> None:
        self._detector, self.device_note = load_network(detector_path, DETECTOR, providers)
        self._keypoints, note = load_network(keypoints_path, KEYPOINTS, providers)
        self.device_note = self.device_note or note
        self.providers = list(dict.fromkeys([self._detector.place, self._keypoints.place]))
        logger.info("Pose detection runs on %s", ", ".join(self.providers))
        if self.device_note:
            warn_once(self.device_note)

    @property
    def card_memory(self) -> int:
        """About how many bytes of a graphics card's memory detection takes; 0 where it runs on the processor."""
        on_card = [network for network in (self._detector, self._keypoints) if not network.on_cpu]
        return sum(network.path.stat().st_size + _WORKING_MEMORY for network in on_card)

    def release(self) -> None:
        """Give a graphics card's memory back until the next detection, which then starts a second or two later.

        What runs on the processor stays ready, and so do providers that take longer to start (TensorRT, CoreML). Not to
        be called while `detect_frames` is at work.
        """
        self._detector.release()
        self._keypoints.release()

    def detect(self, picture: np.ndarray) -> People:
        """Find the people in a picture.

        Args:
            picture: uint8 H W 3, RGB.

        Returns:
            The people, best first. Where there is none, `NobodyFound`: one, whose box is the whole picture.

        Raises:
            InputError: It is not such a picture.
        """
        return self._detect([_check_picture(picture, "The picture")])[0]

    def detect_frames(self, frames: Iterable[np.ndarray]) -> Iterator[People]:
        """Find the people in each frame of a video, faster than one by one; memory does not grow with its length.

        Frames are read in a thread, a few ahead. Several frames, and the people of all of them, go through a network
        together where its batch axis is free. An exception while reading is raised after the people of the frames
        before it. When the iterator ends, or is closed or dropped, no thread is left; a frame being read is waited for.

        Args:
            frames: Each uint8 H W 3, RGB; sizes may differ. They must not be changed afterwards.

        Yields:
            As `detect` gives, for each frame.

        Raises:
            InputError: A frame is not such a picture.
        """
        on_cpu = self._detector.on_cpu and self._keypoints.on_cpu
        group, workers = (
            (_FRAMES_CPU, min(_WORKERS_CPU, torch.get_num_threads())) if on_cpu else (_FRAMES_GPU, _WORKERS_GPU)
        )
        checked = (_check_picture(frame, f"Frame {number}") for number, frame in enumerate(frames))
        yield from map_read_ahead(self._detect, checked, group, workers)

    def _detect(self, pictures: list[np.ndarray]) -> list[People]:
        boxes = self._find_boxes(pictures)  # of each picture, k 4
        found = [len(some) > 0 for some in boxes]
        for number, picture in enumerate(pictures):
            if not found[number]:
                boxes[number] = np.array([(0, 0, picture.shape[1], picture.shape[0])], np.float32)
        owners = [picture for picture, some in zip(pictures, boxes, strict=True) for _ in some]
        points, scores = self._find_points(owners, np.concatenate(boxes))  # n 134 2, n 134
        ends = np.cumsum([len(some) for some in boxes])[:-1]
        parts = zip(found, boxes, np.split(points, ends), np.split(scores, ends), strict=True)
        return [(People if seen else NobodyFound)(some.astype(np.float64), *rest) for seen, some, *rest in parts]

    def _find_boxes(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        network = self._detector
        step, boxes = network.at_once(len(pictures)), []
        for start in range(0, len(pictures), step):
            seen, ratios = letterbox(pictures[start : start + step], network.height, network.width)
            boxes += decode_boxes(network.run(seen)[0], ratios, network.height, network.width)
        return boxes

    def _find_points(self, pictures: list[np.ndarray], boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points and scores of the people in n boxes, each in its picture."""
        network = self._keypoints
        centres, sizes = frame_people(boxes, network.height, network.width)
        step = network.at_once(_PEOPLE_CPU if network.on_cpu else _PEOPLE_GPU)
        seen = np.empty((min(step, len(boxes)), 3, network.height, network.width), np.float32)  # n 3 h w
        parts = []
        for start in range(0, len(boxes), step):
            people = range(start, min(start + step, len(boxes)))
            for target, person in zip(seen, people, strict=False):
                crop_person(pictures[person], centres[person], sizes[person], target)
            parts.append(find_best(*network.run(seen[: len(people)])))
        points, scores = map(np.concatenate, zip(*parts, strict=True))
        return place_points(points, scores, centres, sizes)


def _check_picture(picture: Any, name: str) -> np.ndarray:
    """A picture whose memory is in order.

    Raises:
        InputError: It is not uint8 H W 3, has no pixel, or is too large.
    """
    if not isinstance(picture, np.ndarray):
        raise InputError(f"{name} is {type(picture).__name__}; give a NumPy array, uint8 H W 3, RGB.")
    if picture.dtype != np.uint8:
        raise InputError(
            f"{name} is {picture.dtype}; give uint8, 0 … 255 (values from 0 to 1 times 255, rounded), H W 3, RGB."
        )
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise InputError(f"{name} has shape {picture.shape}; give H W 3, RGB, without transparency.")
    height, width = picture.shape[:2]
    if not (1 <= height <= MOST_PIXELS and 1 <= width <= MOST_PIXELS):
        raise InputError(f"{name} is {width} × {height} pixels; give 1 to {MOST_PIXELS} a side.")
    return np.ascontiguousarray(picture)
