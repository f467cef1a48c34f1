"""Time of pose detection, frame by frame and with frames put together: `python benchmarks/pose.py`.

Detects people in a video, in turn in three ways:

- plain: frame after frame is read, and person after person cut out and normalised by NumPy, as existing code does;
- detect: frame after frame is read and given to `PoseDetector.detect`; all people of a frame go through together where
  the network's batch axis is free;
- detect_frames: frames are read in a thread; several frames, and all their people, go through together.

The networks are DWPose's stubs, which cost next to nothing, with one picture at a time as they are and with a free
batch axis; and the latter with a share of the real networks' cost, with one to three people in a frame and with about
twenty. On a GPU the share is 1 by default; a CPU is given less, so that it does not take hours. Real networks are
measured with `--detector` and `--keypoints`.

What can be had: on a CPU, all three ways have the same sums to do in the networks. Against `detect`, n cores bring at
most n times, where a frame by itself uses one of them; less where the network computes on all of them already. A GPU is
far from busy with one picture. Times on a machine that does other work at the same time mean little; their ratios mean
more, as all ways are measured in turn.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pose_networks import DETECTOR, KEYPOINTS, STUBS, save, stub
from pose_plain import PlainDetector

from unianimate_core.pose.detection import PoseDetector
from unianimate_core.video import VideoReader, VideoWriter

FEW_PEOPLE = -1.2  # shifts the stub detector's objectness
CPU_SHARE = 1 / 16
WAYS = ("plain", "detect", "detect_frames")


def write_video(path: Path, frames: int) -> Path:
    """A video of 640 × 480 in which the golden data's picture slowly moves."""
    picture = np.load(STUBS / "dwpose.npz")["0.image_rgb"]
    with VideoWriter(path, picture.shape[1], picture.shape[0], fps=30) as video:
        for shift in range(frames):
            video.write(np.roll(picture, shift, 1)[None])
    return path


def write_stubs(folder: Path, batch: int | None = None, share: float = 0.0, shift: float = 0.0) -> tuple[Path, Path]:
    """The two stubs with changes; see `stub`."""
    name = f"{batch}_{share}_{shift}".replace(".", "_")
    detector = save(stub(DETECTOR, batch, share, shift), folder / f"detector_{name}.onnx")
    return detector, save(stub(KEYPOINTS, batch, share), folder / f"keypoints_{name}.onnx")


def compare(name: str, files: tuple[Path, Path], video: Path, options: argparse.Namespace) -> str:
    """A row of the table: medians of all ways, taken in turn."""
    detector = PoseDetector(*files, options.providers)
    plain = PlainDetector(*map(str, files), detector.providers)

    def read() -> Iterator[np.ndarray]:
        with VideoReader(video) as reader:
            yield from islice(reader, options.frames)

    def detect(way: str) -> Iterator[tuple[Any, ...]]:
        if way == "detect_frames":
            return detector.detect_frames(read())
        return map((detector if way == "detect" else plain).detect, read())

    results: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for repeat in range(options.repeats + 1):  # the first warms up
        for way in WAYS:
            start, busy = time.perf_counter(), time.process_time()
            people = [len(found[0]) for found in detect(way)]
            result = (time.perf_counter() - start, time.process_time() - busy, sum(people))
            results[way] += [tuple(value / len(people) for value in result)] if repeat else []
    middle = {way: [statistics.median(values) for values in zip(*rows, strict=True)] for way, rows in results.items()}
    cells = [f"{seconds * 1e3:.1f} ({busy * 1e3:.1f})" for seconds, busy, _ in middle.values()]
    ratios = [f"{middle[way][0] / middle['detect_frames'][0]:.2f} ×" for way in WAYS[:2]]
    return f"| {' | '.join([name, f'{middle[WAYS[2]][2]:.1f}', *cells, *ratios])} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="default: one that is made of the golden data's picture")
    parser.add_argument("--frames", type=int, default=32, help="of the video; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--share", type=float, help="of the real cost; default: 1 on a GPU, 1/16 on a CPU")
    parser.add_argument("--providers", nargs="+", help="of onnxruntime; default: the best that is installed")
    parser.add_argument("--detector", type=Path, help="measure this person detector instead of the stubs")
    parser.add_argument("--keypoints", type=Path, help="with this keypoint network")
    options = parser.parse_args()
    if (options.detector is None) != (options.keypoints is None):
        parser.error("give both --detector and --keypoints, or neither")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = options.video or write_video(folder / "video.mp4", options.frames)
        places = PoseDetector(DETECTOR, KEYPOINTS, options.providers).providers
        share = options.share or (CPU_SHARE if places == ["CPUExecutionProvider"] else 1)
        if options.detector:
            rows = {"as given": (options.detector, options.keypoints)}
        else:
            rows = {
                "golden stubs": (DETECTOR, KEYPOINTS),
                "golden stubs, batch free": write_stubs(folder),
                f"{share:.3g} of the real cost, few people": write_stubs(folder, None, share, FEW_PEOPLE),
                f"{share:.3g} of the real cost, many people": write_stubs(folder, None, share),
            }
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
        )
        print(f"{device}, {torch.get_num_threads()} threads; {', '.join(places)}; {options.frames} frames")
        print("milliseconds a frame (and of the processor, all threads); how many times faster detect_frames is\n")
        print(f"| networks | people | {' | '.join(WAYS)} | than plain | than detect |")
        print("| --- " * 7 + "|")
        for row, files in rows.items():
            print(compare(row, files, video, options), flush=True)


if __name__ == "__main__":
    main()
