"""Seams, drift, time and memory of long videos: `python benchmarks/long_video.py -o docs/long_video`.

Each way makes one video of the small model's person by the sample dance, played to and fro. Then

- *seam ratio*: the mean jump (mean absolute difference of successive frames) onto the first new frame of a segment,
  over the median jump elsewhere; for windows, where the set of windows that a frame is in changes;
- *identity*: mean CIEDE2000 distance of the mean colour along each limb from the reference picture's along the same
  limb, by the pose; how it grows over the video is the drift. What hides a limb adds to it in all ways alike;
- *time and memory*: seconds a frame, and the resident memory of a process of its own, models and all, at its worst
  moment while the video is made and written, for each length.

Results are kept in a JSON file: a run that was stopped goes on, and an option that changes the result begins anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resident import WorstMemory

from unianimate_core import InputError, MotionTrack, console, read_motion
from unianimate_core.animate import Animation, Settings
from unianimate_core.diffusion import window_starts
from unianimate_core.diffusion.noise import LONG_VIDEO_PRIOR
from unianimate_core.figures import draw_figure, new_figure
from unianimate_core.long_video import Chaining, animate_long
from unianimate_core.model_options import choose_models
from unianimate_core.optional import EVALUATE_EXTRA, require
from unianimate_core.output import check_folder, replacing, write_picture
from unianimate_core.pose.drawing import LIMBS
from unianimate_core.video import VideoWriter, read_picture
from unianimate_core.video.writing import to_uint8

SAMPLES = Path(__file__).parent.parent / "samples"
BODY_LIMBS = LIMBS[2:12]  # arms, from the shoulders, and legs with the hips
ALONG = np.linspace(0.25, 0.75, 9)  # of a limb: away from the joints, where other limbs are


@dataclass(frozen=True)
class Way:
    """One way to a long video.

    Attributes:
        chaining: Options of `Chaining`; None where windows slide over the whole video.
        windows: Options of `Settings` about windows.
        scale: Of the segment's length.
    """

    chaining: dict[str, Any] | None
    windows: dict[str, Any] = field(default_factory=dict)
    scale: int = 1


def ways(segment: int) -> dict[str, Way]:
    """All that are compared, by name."""
    overlap = max(1, segment // 4)
    windows = {"window": segment, "overlap": overlap}
    return {
        "chained": Way({}),
        "chained, prior from nothing": Way({"prior": "nothing"}),
        "chained, prior from the start frame": Way({"prior": "start-frame"}),
        "chained, colours of the reference": Way({"colours": "reference"}),
        "chained, colours of the first segment": Way({"colours": "first-segment"}),
        f"chained, {overlap} shared frames": Way({"shared": overlap}),
        "windows": Way(None, windows),
        "windows, pyramid weights": Way(None, windows | {"window_weights": "pyramid"}),
        "chained, windows within": Way({}, windows, scale=2),
    }


@dataclass(frozen=True)
class Setup:
    """What every video of a run is made with."""

    checkpoint: Path | None
    vae: Path | None
    size: tuple[int, int]
    segment: int
    steps: int
    guidance: float
    seed: int

    def animation(self, frames: int, way: Way) -> tuple[Animation, Chaining]:
        """Models, picture and motion, ready."""
        models = choose_models(self.checkpoint, self.vae, None, None, None)
        settings = Settings(
            *self.size,
            frames,
            steps=self.steps,
            guidance=self.guidance,
            prior=LONG_VIDEO_PRIOR,
            seed=self.seed,
            **way.windows,
        )
        picture = read_picture(SAMPLES / "person.jpg")
        animation = Animation(models.unet, models.autoencoder, picture, motion(frames), settings)
        length = frames if way.chaining is None else min(self.segment * way.scale, frames)
        return animation, Chaining(max(2, length), **(way.chaining or {}))

    def described(self) -> dict[str, Any]:
        """As the results name it."""
        return json.loads(json.dumps(asdict(self), default=str))


def motion(frames: int) -> MotionTrack:
    """The sample dance, to and fro, so that it never jumps."""
    dance = read_motion(SAMPLES / "dance.json")
    there_and_back = [*range(len(dance)), *range(len(dance) - 2, 0, -1)]
    return dance[list(itertools.islice(itertools.cycle(there_and_back), frames))]


# Seams and drift


def borders(setup: Setup, way: Way, frames: int) -> list[int]:
    """The frames that follow a seam."""
    found: set[int] = set()
    whole = [(0, frames)]
    if way.chaining is not None:
        plan = Chaining(min(setup.segment * way.scale, frames), **way.chaining).plan(frames)
        found = {segment.start + segment.shared for segment in plan[1:]}
        whole = [(segment.start, segment.length) for segment in plan]
    if way.windows:
        size = way.windows["window"]
        for start, length in whole:
            starts = window_starts(length, size, way.windows["overlap"])
            found |= {start + n for n in starts[1:]} | {start + n + size for n in starts[:-1]}
    return sorted(frame for frame in found if frame < frames)


def jumps(video: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame from the one before: uint8 f h w 3 → f - 1."""
    return np.array([np.abs(after.astype(np.int16) - before).mean() for before, after in itertools.pairwise(video)])


def seam_ratio(video: np.ndarray, seams: list[int]) -> float:
    """Mean jump onto the frames at seams over the median jump onto others; NaN where nothing else moves."""
    jump, at = jumps(video), np.isin(np.arange(1, len(video)), seams)
    inside = float(np.median(jump[~at]))
    return float(jump[at].mean()) / inside if inside and at.any() else float("nan")


def limb_colours(frame: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Mean Lab colours along limbs, limbs 3, of a frame uint8 h w 3 by its body 20 2; NaN where one is not seen."""
    colour = require("skimage.color", EVALUATE_EXTRA)
    height, width = frame.shape[:2]
    start, end = body[BODY_LIMBS[:, 0]], body[BODY_LIMBS[:, 1]]
    points = start[:, None] + (end - start)[:, None] * ALONG[:, None]  # limbs points 2
    seen = ((points >= 0) & (points < 1)).all(-1)  # NaN: not seen
    cells = (np.where(seen[..., None], points, 0) * (width, height)).astype(int)
    lab = colour.rgb2lab(frame / 255)[cells[..., 1], cells[..., 0]]
    lab[~seen] = np.nan
    return np.where(seen.any(1)[:, None], np.nansum(lab, 1) / np.maximum(1, seen.sum(1))[:, None], np.nan)


def identity(video: np.ndarray, bodies: np.ndarray, reference: np.ndarray, standing: np.ndarray) -> np.ndarray:
    """Distance of each frame's limb colours from the reference picture's, CIEDE2000: f."""
    colour = require("skimage.color", EVALUATE_EXTRA)
    true = limb_colours(reference, standing)
    distances = [
        colour.deltaE_ciede2000(limb_colours(frame, body), true) for frame, body in zip(video, bodies, strict=True)
    ]
    return np.nanmean(np.array(distances), axis=1)


def measure(setup: Setup, way: Way, frames: int, folder: Path, name: str) -> dict[str, Any]:
    """Make one video, keep it, and measure it."""
    animation, chaining = setup.animation(frames, way)
    groups = []
    with console.progress_bars() as progress:
        bar = progress.add_task(name, total=frames)
        for group in animate_long(animation, chaining):
            groups.append(group)
            progress.advance(bar, len(group))
    video = torch.cat(groups).numpy()
    file = "-".join(name.replace(",", "").split())
    write_all(folder / f"{file}.mp4", groups, setup.size)
    seams = borders(setup, way, frames)
    write_picture(contact_sheet(video, seams), folder / f"{file}.png")
    track = animation.driving
    distance = identity(video, track.body, to_uint8(animation.picture).numpy(), animation.standing.body[0])
    parts = np.array_split(distance, max(1, round(frames / setup.segment)))
    return {
        "seam": seam_ratio(video, seams),
        "borders": seams,
        "jumps": np.round(jumps(video), 3).tolist(),
        "identity": np.round(distance, 3).tolist(),
        "identity_by_segment": [float(part.mean()) for part in parts],
        "growth": float(100 * np.polyfit(np.arange(frames), distance, 1)[0]),
    }


def write_all(path: Path, groups: Iterable[torch.Tensor], size: tuple[int, int]) -> None:
    """Write a video group by group."""
    with VideoWriter(path, *size, overwrite=True) as writer:
        for group in groups:
            writer.write(group)


def contact_sheet(video: np.ndarray, seams: list[int], most: int = 20) -> np.ndarray:
    """The frames on both sides of the seams, above each other."""
    chosen = seams[:: max(1, -(-len(seams) // most))] or [1]
    return np.concatenate([np.concatenate([video[n] for n in row], 1) for row in ([s - 1 for s in chosen], chosen)])


# Time and memory


def cost(setup: Setup, way: Way, frames: int) -> dict[str, float]:
    """Seconds a frame, and the resident memory of a new process at its worst moment, MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_cost, (setup, way, frames))


def _cost(setup: Setup, way: Way, frames: int) -> dict[str, float]:
    torch.set_num_threads(1)
    for _ in animate_long(*setup.animation(2, way)):  # libraries load what they need
        pass
    animation, chaining = setup.animation(frames, way)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, WorstMemory() as memory:
        write_all(Path(folder) / "a.mp4", animate_long(animation, chaining), setup.size)
    return {"seconds": (time.perf_counter() - start) / frames, "megabytes": memory.megabytes}


# The report


def report(results: dict[str, Any]) -> str:
    """In Markdown, from the results alone."""
    setup, videos, costs = results["setup"], results["videos"], results["costs"]
    lines = [
        "# Long videos, measured",
        f"Made by `python benchmarks/long_video.py`, on {results['machine']}. {results['frames']} frames of "
        f"{setup['size'][0]} x {setup['size'][1]} in segments (or windows) of {setup['segment']}, "
        f"{setup['steps']} DDIM steps, guidance {setup['guidance']:g}, seed {setup['seed']}, "
        f"{Path(setup['checkpoint']).name if setup['checkpoint'] else 'the small model of the package'}. What the "
        "numbers mean stands at the head of the program.",
    ]
    if videos:
        rows = ["| way | seam ratio | identity ΔE, first segment | last segment | growth over 100 frames |"]
        rows += ["| --- | --- | --- | --- | --- |"]
        for name, video in videos.items():
            parts = video["identity_by_segment"]
            cells = (f"{video['seam']:.2f}", f"{parts[0]:.2f}", f"{parts[-1]:.2f}", f"{video['growth']:+.3f}")
            rows.append(f"| {name} | {' | '.join(cells)} |")
        lines += ["\n".join(rows), "![Identity and jumps, frame by frame](drift.png)"]
    if costs:
        lengths = sorted({int(length) for way in costs.values() for length in way}, key=int)
        rows = [
            f"| way | {' | '.join(f'{length} frames' for length in lengths)} |",
            "| --- " * (len(lengths) + 1) + "|",
        ]
        for name, way in costs.items():
            found = [way.get(str(length)) for length in lengths]
            cells = [f"{c['seconds']:.3f} s, {c['megabytes']:.0f} MB" if c else "–" for c in found]
            rows.append(f"| {name} | {' | '.join(cells)} |")
        lines += [
            f"Seconds a frame, one thread, {results['cost_steps']} step(s) at "
            f"{results['cost_size'][0]} x {results['cost_size'][1]}; and the process's resident memory at its worst "
            "moment:",
            "\n".join(rows),
            "![Time and memory over the length](length.png)",
        ]
    return "\n\n".join(lines) + "\n"


def plots(results: dict[str, Any], folder: Path) -> None:
    """drift.png and length.png."""
    if results["videos"]:
        figure = new_figure(11, 7, EVALUATE_EXTRA)
        upper, lower = figure.subplots(2, 1, sharex=True)
        for name, video in results["videos"].items():
            segments = np.array_split(np.arange(results["frames"]), len(video["identity_by_segment"]))
            upper.plot([part.mean() for part in segments], video["identity_by_segment"], label=name, marker=".")
            lower.plot(np.arange(1, results["frames"]), video["jumps"], label=name, linewidth=0.8)
        upper.set_ylabel("identity ΔE, by segment")
        lower.set_ylabel("jump, grey levels")
        lower.set_xlabel("frame")
        upper.legend(fontsize="small", ncols=2)
        write_picture(draw_figure(figure), folder / "drift.png")
    if results["costs"]:
        figure = new_figure(11, 4, EVALUATE_EXTRA)
        axes = figure.subplots(1, 2)
        for name, way in results["costs"].items():
            lengths = sorted(way, key=int)
            for axis, key in zip(axes, ("seconds", "megabytes"), strict=True):
                axis.plot([int(n) for n in lengths], [way[n][key] for n in lengths], label=name, marker="o")
        for axis, title in zip(axes, ("seconds a frame", "resident memory, MB"), strict=True):
            axis.set_xscale("log", base=2)
            axis.set_xlabel("frames")
            axis.set_ylabel(title)
            axis.set_ylim(bottom=0)
        axes[0].legend(fontsize="small")
        write_picture(draw_figure(figure), folder / "length.png")


def keep(results: dict[str, Any], folder: Path) -> None:
    """Write results, report and plots, each whole or not at all."""
    with replacing(folder / "results.json") as file:
        file.write_text(json.dumps(results) + "\n", encoding="utf-8")
    with replacing(folder / "README.md") as file:
        file.write_text(report(results), encoding="utf-8")
    plots(results, folder)


def known(folder: Path, head: dict[str, Any]) -> dict[str, Any]:
    """The results of an earlier run of the same; none where there is no such run."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if all(results[key] == value for key, value in head.items()):
            return results
    except (OSError, ValueError, KeyError):
        pass
    return {**head, "videos": {}, "costs": {}}


def chosen(names: list[str], only: list[str] | None) -> Iterator[str]:
    """The names that contain one of some words; all where there are none."""
    return (name for name in names if not only or any(word in name for word in only))


def main() -> None:
    """Make, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/long_video"), help="default: %(default)s")
    parser.add_argument("--segments", type=int, default=20, help="of the videos; default: %(default)s")
    parser.add_argument("--segment", type=int, default=16, help="frames of one; default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="of DDIM; default: %(default)s")
    parser.add_argument("--guidance", type=float, help="default: the model's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", help="default: the model's")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--only", nargs="+", help="ways whose names have one of these words in them")
    parser.add_argument("--lengths", type=int, nargs="*", default=[32, 64, 128, 256, 512, 1024, 2048], help="in frames")
    parser.add_argument("--cost-size", default="64x96", help="default: %(default)s")
    parser.add_argument("--cost-steps", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    models = choose_models(options.checkpoint, options.vae, None, None, None)
    guidance = models.guidance if options.guidance is None else options.guidance
    size = console.parse_size(options.size or models.size, "--size")
    files = options.checkpoint, options.vae
    setup = Setup(*files, size, options.segment, options.steps, guidance, options.seed)
    cost_size = console.parse_size(options.cost_size, "--cost-size")
    cheap = Setup(*files, cost_size, options.segment, options.cost_steps, guidance, options.seed)
    frames = options.segments * (options.segment - 1) + 1
    head = {
        "setup": setup.described(),
        "frames": frames,
        "cost_size": list(cost_size),
        "cost_steps": options.cost_steps,
    }
    folder = check_folder(options.output)
    results = known(folder, head)
    results["machine"] = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)"
    compared = ways(options.segment)
    for name in chosen([*compared], options.only):
        if name not in results["videos"]:
            results["videos"][name] = measure(setup, compared[name], frames, folder, name)
            keep(results, folder)
    for name in chosen(["chained", "windows"], options.only):
        for length in options.lengths:
            found = results["costs"].setdefault(name, {})
            if str(length) not in found:
                found[str(length)] = cost(cheap, compared[name], length)
                keep(results, folder)
    keep(results, folder)
    print(report(results))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped: the same command goes on.")
