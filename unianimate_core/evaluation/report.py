"""What was measured, in words and numbers: the columns, the table, metrics.json and metrics.md."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..output import replacing

Row = Mapping[str, float | None]


@dataclass(frozen=True)
class Column:
    """A metric, as it is shown.

    Attributes:
        title: Its name in the papers.
        better: ↑ where more is better, ↓ where less is.
        form: How a number is printed.
        meaning: What it is.
    """

    title: str
    better: str
    form: str
    meaning: str


COLUMNS = {
    "l1": Column("L1", "↓", ".2f", "mean absolute difference in grey levels, 0 to 255"),
    "l1_published": Column("L1 (published)", "↓", ".2E", "L1 divided by width x height, as papers print it"),
    "psnr": Column(
        "PSNR", "↑", ".2f", "dB, at most 58.92, as older papers print it: differences and squares overflow in uint8"
    ),
    "psnr_star": Column(
        "PSNR*", "↑", ".2f", "dB, computed in floats; at most 58.92: squared errors below 1/12 count as that"
    ),
    "ssim": Column("SSIM", "↑", ".4f", "scikit-image, uniform window of 7 x 7"),
    "lpips": Column("LPIPS", "↓", ".4f", "version 0.1, backbone as given"),
    "fvd": Column("FVD", "↓", ".1f", "squared Fréchet distance of the features of all videos"),
    "limb_iou": Column("limb IoU", "↑", ".3f", "arms and legs where they should be, by their colours"),
    "person_iou": Column("person IoU", "↑", ".3f", "person against background, by their colours"),
    "identity": Column("identity ΔE", "↓", ".2f", "CIEDE2000 between each part's true colour and the one made"),
}
"""Every metric by its key in metrics.json, in the order of the table."""

ROWS = {
    "model": "Model",
    "predictions": "Predictions",
    "autoencoder": "Autoencoder alone (ceiling)",
    "still": "Still reference picture",
    "colour": "Best single colour",
    "truth": "Truth (ceiling of the part measures)",
}
"""Every kind of video that is compared with the truth, in the order of the table."""


def table(rows: Mapping[str, Row], head: str = "") -> str:
    """A Markdown table: a line for each row, a column for each metric that any of them has.

    Args:
        rows: Numbers by the keys of `COLUMNS`, for each row; None or NaN where there is none. Names that are keys of
            `ROWS` are written out.
        head: Above the names.
    """
    keys = [key for key in COLUMNS if any(key in row for row in rows.values())]
    titles = [f"{COLUMNS[key].title} {COLUMNS[key].better}" for key in keys]
    lines = [[head, *titles], ["---", *["---:"] * len(keys)]]
    lines += [[ROWS.get(name, name), *(_number(row.get(key), key) for key in keys)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_report(folder: Path, report: Mapping[str, Any], notes: list[str]) -> None:
    """Write metrics.md, then metrics.json, whose being there says that the evaluation is complete.

    Args:
        folder: Where to.
        report: As `evaluate` makes it; NaN is written as null.
        notes: Lines for the reader of metrics.md.

    Raises:
        InputError: A file cannot be written.
    """
    main = next(iter(report["means"]))
    keys = [key for key in COLUMNS if any(key in row for row in report["means"].values())]
    lines = [
        "# Evaluation",
        "",
        *(f"{note}  " for note in notes),
        "",
        table(report["means"]),
        "",
        f"## {ROWS[main]}, video by video",
        "",
        table({video["name"]: video["rows"][main]["mean"] for video in report["videos"]}, "video"),
        "",
        "## What the columns are",
        "",
        *(f"- **{COLUMNS[key].title}** ({COLUMNS[key].better} is better): {COLUMNS[key].meaning}." for key in keys),
        "",
        "Each number is the mean over the videos of the mean over their frames. The settings, versions and every",
        "frame's numbers are in metrics.json.",
    ]
    if report["skipped"]:
        lines += ["", f"## Skipped: {len(report['skipped'])}", ""]
        lines += [f"- {name}: {reason}" for name, reason in report["skipped"].items()]
    with replacing(folder / "metrics.md") as file:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with replacing(folder / "metrics.json") as file:
        file.write_text(json.dumps(_plain(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Of Python and of the packages that the numbers depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in ("unianimate", "torch", "torchvision", "numpy", "scikit-image", "lpips", "av", "diffusers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _number(value: float | None, key: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, COLUMNS[key].form)


def _plain(value: Any) -> Any:
    """What JSON can hold: lists for arrays, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
