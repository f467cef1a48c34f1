"""Compares made videos, and simple baselines, with the truth, clip by clip, and writes down what comes out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data_folder import Source
from ..errors import InputError
from ..output import write_picture
from ..video import VideoWriter
from .clips import Clip, GroundTruth, read_clip
from .metrics import pixel_metrics
from .parts import PartMeter
from .perceptual import Lpips, VideoFeatures, frechet_distance
from .pictures import contact_strip, mean_curves, plot_curves, side_by_side
from .report import ROWS, versions, write_report

SHEET_CLIPS = 12

PerFrame = dict[str, dict[str, np.ndarray]]


class VideoSource(Protocol):
    """Where the videos to be compared come from.

    Attributes:
        needs_poses: Whether a clip without poses is of no use.
    """

    needs_poses: bool

    def check(self, clip: Clip, truth: GroundTruth) -> None:
        """Raise InputError for a clip that cannot be used; it is skipped."""

    def verify(self, clip: Clip, truth: GroundTruth) -> None:
        """Raise InputError for what would end `videos`, as far as it is known before; nothing is made yet."""

    def videos(self, clip: Clip, truth: GroundTruth) -> dict[str, np.ndarray]:
        """The videos uint8 f H W 3 by the keys of `report.ROWS`; the first is the one that it is about.

        Raises InputError where that cannot go on for any clip.
        """


def evaluate(
    videos: Mapping[str, Source],
    source: VideoSource,
    cut: Callable[[Clip], GroundTruth],
    folder: Path,
    settings: Mapping[str, Any],
    lpips: Lpips | None = None,
    features: VideoFeatures | None = None,
    note: Callable[[str], None] = print,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Evaluate a set of videos.

    All videos are read and checked first; one that cannot be used is skipped, named and counted. Beside the source's
    videos, two baselines are compared that any model must beat: the reference picture standing still, and the single
    colour with the least squared error.

    Args:
        videos: The true ones, by name; see `list_videos`.
        source: Makes or reads what is compared with them.
        cut: Brings a clip to the size and length of the comparison; see `cut_clip`.
        folder: There already; gets metrics.json, metrics.md, plots/, side_by_side/ and contact_sheet.png. What an
            earlier evaluation left of these goes before the first is written.
        settings: What was asked for, for the report.
        lpips: For that metric.
        features: For FVD.
        note: Called with a line for the user.
        advance: Called after every video.

    Returns:
        What metrics.json holds: ``settings``, ``versions``, ``means`` (row → metric), ``videos`` (each with ``name``,
        ``frames``, ``size`` and ``rows``: row → ``mean`` and ``per_frame``), ``skipped`` (name → reason), ``notes``.

    Raises:
        InputError: No video can be used, a file cannot be written, or the source cannot go on.
    """

    def read(video: Source) -> tuple[Clip, GroundTruth, PartMeter | None]:
        clip = read_clip(video, source.needs_poses)
        truth = cut(clip)
        return clip, truth, None if truth.parts is None else PartMeter(truth.parts, truth.frames)

    usable: list[Source] = []
    skipped: dict[str, str] = {}
    for video in videos.values():
        try:
            clip, truth, _ = read(video)
            source.check(clip, truth)
        except InputError as error:
            skipped[video.name] = str(error)
            note(f"Skipped {video.name}: {error}")
            advance()
            continue
        source.verify(clip, truth)
        usable.append(video)
    if not usable:
        raise InputError(f"none of the {len(videos)} videos can be used: {'; '.join(skipped.values())}")
    _remove_results(folder)
    entries: list[dict[str, Any]] = []
    strips: list[np.ndarray] = []
    collected: dict[str, list[np.ndarray]] = {}
    for video in usable:
        clip, truth, meter = read(video)
        made = source.videos(clip, truth)
        everything = made | baselines(truth)
        measured = measure(truth, everything, meter, lpips)
        if features is not None:
            for row, frames in {**everything, "truth": truth.frames}.items():
                collected.setdefault(row, []).append(features(frames))
        entries.append(_entry(truth, measured, meter))
        shown = next(iter(made.values()))
        beside, plot = _shown_files(folder, truth.name)
        beside.parent.mkdir(parents=True, exist_ok=True)
        plot.parent.mkdir(parents=True, exist_ok=True)
        _write_video(beside, truth, shown)
        write_picture(plot_curves(measured, truth.name), plot)
        if len(strips) < SHEET_CLIPS:
            strips.append(contact_strip(truth.name, truth.reference, truth.frames, shown))
        advance()
    means = _means([{row: values["mean"] for row, values in entry["rows"].items()} for entry in entries])
    notes = _describe(entries, skipped, settings)
    if features is not None:
        notes.append(_add_fvd(means, collected))
    report = {
        "settings": dict(settings),
        "versions": versions(),
        "means": means,
        "videos": entries,
        "skipped": skipped,
        "notes": notes,
    }
    write_picture(_stack(strips), folder / "contact_sheet.png")
    curves = mean_curves([{row: values["per_frame"] for row, values in e["rows"].items()} for e in entries])
    write_picture(plot_curves(curves, f"mean of {len(entries)} videos"), folder / "plots" / "mean.png")
    write_report(folder, report, notes)
    return report


def baselines(truth: GroundTruth) -> dict[str, np.ndarray]:
    """``still``: the reference picture in every frame. ``colour``: the mean of all pixels; both uint8 f H W 3."""
    colour = np.rint(truth.frames.mean((0, 1, 2))).astype(np.uint8)
    shape = truth.frames.shape
    return {"still": np.broadcast_to(truth.reference, shape), "colour": np.broadcast_to(colour, shape)}


def measure(
    truth: GroundTruth, videos: Mapping[str, np.ndarray], meter: PartMeter | None = None, lpips: Lpips | None = None
) -> PerFrame:
    """All metrics of single videos: for each of them, numbers f by the keys of `report.COLUMNS`.

    With ``meter`` there is one more row, ``truth``, for what the part measures give at best.
    """
    measured: PerFrame = {}
    for row, video in videos.items():
        measured[row] = pixel_metrics(video, truth.frames)
        if lpips is not None:
            measured[row]["lpips"] = lpips(video, truth.frames)
        if meter is not None:
            measured[row] |= meter.measure(video)
    if meter is not None:
        measured["truth"] = meter.measure(truth.frames)
    return measured


def _shown_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Where a clip's video and plot are."""
    return folder / "side_by_side" / f"{name}.mp4", folder / "plots" / f"{name}.png"


def _remove_results(folder: Path) -> None:
    """Remove metrics.json, whose being there says that all is complete, and what belongs to it."""
    metrics = folder / "metrics.json"
    try:
        names = [video["name"] for video in json.loads(metrics.read_text(encoding="utf-8"))["videos"]]
    except (OSError, ValueError, KeyError, TypeError):  # not there, or another's
        names = []
    for file in (metrics, folder / "metrics.md", folder / "contact_sheet.png", folder / "plots" / "mean.png"):
        file.unlink(missing_ok=True)
    for name in names:
        for file in _shown_files(folder, name):
            file.unlink(missing_ok=True)


def _entry(truth: GroundTruth, measured: PerFrame, meter: PartMeter | None) -> dict[str, Any]:
    frames, height, width, _ = truth.frames.shape
    rows = {
        row: {"mean": {key: _mean(values) for key, values in metrics.items()}, "per_frame": metrics}
        for row, metrics in measured.items()
    }
    entry = {"name": truth.name, "frames": frames, "size": [width, height], "rows": rows}
    return entry if meter is None else entry | {"parts_alike": meter.group_names()}


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _means(videos: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean over the videos that have a number, for each row and metric, in the order of `ROWS`."""
    means = {}
    for row in ROWS:
        found = [video[row] for video in videos if row in video]
        keys = dict.fromkeys(key for metrics in found for key in metrics)
        if found:
            means[row] = {key: _mean(np.array([m.get(key, math.nan) for m in found])) for key in keys}
    return means


def _add_fvd(means: dict[str, dict[str, float]], collected: Mapping[str, list[np.ndarray]]) -> str:
    """Add FVD to every row but the truth's; returns what the reader has to know of it."""
    truth = collected["truth"]
    if len(truth) < 2:
        return "FVD is left out: only one video could be used, and it compares sets of two or more."
    for row, made in collected.items():
        if row != "truth":
            means[row]["fvd"] = frechet_distance(made, truth)
    width = len(truth[0])
    few = (
        ""
        if len(truth) > width
        else f", no more than its {width} features: too high, to be compared with its like only"
    )
    return f"FVD of {len(truth)} videos{few}."


def _describe(entries: list[dict[str, Any]], skipped: Mapping[str, str], settings: Mapping[str, Any]) -> list[str]:
    sizes = sorted({f"{width} x {height}" for width, height in (entry["size"] for entry in entries)})
    frames = sum(entry["frames"] for entry in entries)
    counted = f"{len(entries)} videos, {frames} frames of {', '.join(sizes)}; {len(skipped)} videos skipped."
    said = ", ".join(f"{name} {value}" for name, value in settings.items() if isinstance(value, (str, int, float)))
    return [counted, f"{said}."]


def _write_video(path: Path, truth: GroundTruth, made: np.ndarray) -> None:
    pose = {} if truth.pose is None else {"pose": truth.pose}
    panels = side_by_side({"reference": truth.reference[None], **pose, "truth": truth.frames, "made": made})
    with VideoWriter(path, panels.shape[2], panels.shape[1], truth.fps, overwrite=True) as video:
        video.write(panels)


def _stack(strips: list[np.ndarray]) -> np.ndarray:
    """Strips under each other; narrower ones are filled up with grey."""
    width = max(strip.shape[1] for strip in strips)
    filled = [np.pad(s, ((0, 8), (0, width - s.shape[1]), (0, 0)), constant_values=128) for s in strips]
    return np.concatenate(filled)
