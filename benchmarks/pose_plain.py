"""Pose detection written the plain way, to compare with: frame after frame, person after person, in float64."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime

MEAN, DEVIATION = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


class PlainDetector:
    """DWPose's networks with nothing put together: boxes, and 133 points of each person."""

    def __init__(self, detector: str, keypoints: str, providers: list[str]) -> None:
        self.detector, self.keypoints = (
            onnxruntime.InferenceSession(p, providers=providers) for p in (detector, keypoints)
        )

    def detect(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes n 4, points n 133 2 and scores n 133 of a picture, uint8 H W 3, RGB."""
        picture = picture[..., ::-1].copy()
        boxes = self._boxes(picture)
        if len(boxes) == 0:
            boxes = np.array([[0, 0, picture.shape[1], picture.shape[0]]])
        points, scores = zip(*(self._points(picture, box) for box in boxes), strict=True)
        return boxes, np.stack(points), np.stack(scores)

    def _boxes(self, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        ratio = min(640 / height, 640 / width)
        seen = np.full((640, 640, 3), 114.0)
        size = (int(width * ratio), int(height * ratio))
        seen[: size[1], : size[0]] = cv2.resize(picture, size)
        answer = self._run(self.detector, seen)[0][0].astype(np.float64)
        cells, strides = [], []
        for stride in (8, 16, 32):
            column, row = np.meshgrid(np.arange(640 // stride), np.arange(640 // stride))
            cells.append(np.stack([column, row], -1).reshape(-1, 2))
            strides.append(np.full((len(cells[-1]), 1), stride))
        cells, strides = np.concatenate(cells), np.concatenate(strides)
        centre, size = (answer[:, :2] + cells) * strides, np.exp(answer[:, 2:4]) * strides
        boxes = np.concatenate([centre - size / 2, centre + size / 2], 1) / ratio
        scores = (answer[:, 4:5] * answer[:, 5:])[:, 0]
        order = [row for row in np.argsort(-scores) if scores[row] > 0.3]
        kept: list[int] = []
        for row in order:
            if not kept or _overlaps(boxes[row], boxes[kept]).max() <= 0.45:
                kept.append(row)
        return boxes[kept]

    def _points(self, picture: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centre, (wide, high) = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * 1.25
        size = np.array([wide, wide / 0.75] if wide > high * 0.75 else [high * 0.75, high])
        scale = 288 / size[0]
        shift = np.array([144, 192]) - centre * scale
        person = cv2.warpAffine(picture, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (288, 384))
        columns, rows = (scores[0] for scores in self._run(self.keypoints, (person - MEAN) / DEVIATION))
        best = np.stack([columns.argmax(1), rows.argmax(1)], 1).astype(np.float64)
        scores = np.minimum(columns.max(1), rows.max(1))
        best[scores <= 0] = -1
        return best / 2 / (288, 384) * size + centre - size / 2, scores

    @staticmethod
    def _run(session: onnxruntime.InferenceSession, seen: np.ndarray) -> list[np.ndarray]:
        return session.run(None, {session.get_inputs()[0].name: seen.transpose(2, 0, 1)[None].astype(np.float32)})


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union with each of the others, both edges' pixels counted."""
    corner, end = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(end - corner + 1, 0).prod(1)
    return shared / ((box[2:] - box[:2] + 1).prod() + (others[:, 2:] - others[:, :2] + 1).prod(1) - shared)
