"""Time to draw pose pictures, with each option: `python benchmarks/drawing.py --size 768x1216 --frames 300`.

The motion is made up: everybody swings their arms and legs, with all joints, fingers and face points present.
Wall time is what a user waits; time of the processor is what it takes where nothing else runs.
"""

from __future__ import annotations

import argparse
import logging
import platform
import time

import cv2
import numpy as np

from unianimate_core import MotionTrack, draw_motion
from unianimate_core.pose import draw_frames

LIMIT = "300 of 768 x 1216 must take less than 2 s on two cores"

# A person standing, in fractions of the picture, in the order of BODY_JOINTS.
STANDING = np.array(
    [
        *((0.50, 0.16), (0.50, 0.25), (0.43, 0.25), (0.39, 0.37), (0.38, 0.48), (0.57, 0.25), (0.61, 0.37)),
        *((0.62, 0.48), (0.46, 0.50), (0.45, 0.69), (0.45, 0.87), (0.54, 0.50), (0.55, 0.69), (0.55, 0.87)),
        *((0.49, 0.14), (0.51, 0.14), (0.47, 0.15), (0.53, 0.15), (0.57, 0.90), (0.43, 0.90)),
    ]
)


def swinging(frames: int, shift: float, width: int, height: int) -> MotionTrack:
    """A person who moves, with hands and face.

    Args:
        frames: How many.
        shift: To the right, as a fraction of the width.
        width: Of the canvas in pixels.
        height: The same.
    """
    phase = np.linspace(0, 8 * np.pi, frames)[:, None]  # f 1
    body = np.repeat(STANDING[None], frames, 0)  # f 20 2
    body[:, [3, 4, 6, 7, 9, 10, 12, 13], 0] += 0.03 * np.sin(phase + np.arange(8))
    body[..., 0] += shift
    finger, joint = np.divmod(np.arange(20), 4)
    turn = (finger - 2) * 0.3 + np.pi / 2
    reach = 0.012 * (joint + 1)[:, None] * np.stack([np.cos(turn), np.sin(turn)], -1)  # 20 2
    hand = np.concatenate([np.zeros((1, 2)), reach])  # 21 2
    hands = body[:, [7, 4], None] + hand  # f 2 21 2
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    face = body[:, :1] + 0.03 * np.stack([np.cos(angle), np.sin(angle)], -1)  # f 68 2
    return MotionTrack(body, hands, face, width=width, height=height)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="768x1216", help="pixels, width x height")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    logging.disable(logging.WARNING)  # that the face is drawn
    people = [swinging(options.frames, shift, width, height) for shift in (0.0, -0.3, 0.3, -0.15, 0.15)]

    print(f"{platform.processor() or platform.machine()}; OpenCV {cv2.__version__}; one thread")
    print(f"{options.frames} frames of {width} x {height}, best of {options.repeats}; {LIMIT}")
    print(f"\n{'':32}{'draw_motion':>22}{'draw_frames':>22}\n{'':32}{'wall':>11}{'CPU':>11}{'wall':>11}{'CPU':>11}")
    rows = {
        "one person": (people[:1], {}),
        "without hands": (people[:1], {"hands": False}),
        "with the face": (people[:1], {"face": True}),
        "lines of three times the width": (people[:1], {"line_width": 3.0}),
        "two people": (people[:2], {}),
        "five people, faces, wide lines": (people, {"face": True, "line_width": 3.0}),
    }
    for name, (tracks, how) in rows.items():
        times = []
        for draw in (draw_motion, lambda *a, **k: sum(1 for _ in draw_frames(*a, **k))):
            trials = []
            for _ in range(options.repeats):
                wall, processor = time.perf_counter(), time.process_time()
                draw(tracks, width, height, **how)
                trials.append((time.perf_counter() - wall, time.process_time() - processor))
            times += [min(column) for column in zip(*trials, strict=True)]
        print(f"{name:32}" + "".join(f"{seconds:9.3f} s" for seconds in times))


if __name__ == "__main__":
    main()
