"""The report: what was measured, in words, tables and plots. Everything in it comes from ablations.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unianimate_core.evaluation.report import COLUMNS, table
from unianimate_core.figures import draw_figure, new_figure
from unianimate_core.optional import EVALUATE_EXTRA

CLEAR = 2.0  # standard errors
JUDGED = ("l1", "psnr_star", "ssim", "limb_iou", "person_iou", "identity")
PANELS = {"jump": "jump, grey levels", "identity": "identity ΔE", "psnr_star": "PSNR*, dB"}


def report(results: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The report in Markdown.

    Args:
        results: What `compare` gave under the comparisons' names, and what `long_video` gave under ``long-video``, each
            with ``machine`` and ``versions``; those that were not run are missing.
        titles: Of the comparisons, by their names.
    """
    parts = ["# Ablations in small"]
    parts += [comparison_section(titles[name], results[name], name) for name in titles if name in results]
    if "long-video" in results:
        parts.append(long_video_section(results["long-video"]))
    return "\n\n".join(parts) + "\n"


def comparison_section(title: str, result: Mapping[str, Any], name: str) -> str:
    """Two networks: what they cost, how good they are, and whether the difference is more than chance."""
    networks = result["networks"]
    paper, other = networks
    forms = {"parameters": ",", "steps": "d", "samples": "d", "seconds": ".0f", "held_out_loss": ".4f"}
    costs = [[key, *(_number(n[name], form) for name, form in forms.items())] for key, n in networks.items()]
    rows = {key: network["means"] for key, network in networks.items()} | result["baselines"]
    judged = {key: value for key, value in result["differences"].items() if key in JUDGED}
    differences = [
        [
            f"{COLUMNS[key].title} {COLUMNS[key].better}",
            format(value["mean"], f"+{COLUMNS[key].form}"),
            "–" if value["error"] is None else format(value["error"], COLUMNS[key].form),
            verdict(key, value),
        ]
        for key, value in judged.items()
    ]
    return "\n\n".join(
        [
            f"## {title}",
            _circumstances(result),
            f"The paper's choice is: {paper}.",
            markdown(["network", "parameters", "steps", "samples", "training, s", "held-out loss"], costs),
            table(rows, "network"),
            f"Difference of “{other}” to “{paper}”, clip by clip:",
            markdown(["metric", "mean", "standard error", f"“{other}” is"], differences),
            "The standard error is over the clips; one training run of each network does not show how much another "
            "seed of the training would change.",
            f"![{title}, frame by frame]({name}.png) ![training loss]({name}-loss.png)",
        ]
    )


def verdict(key: str, difference: Mapping[str, Any]) -> str:
    """Whether a difference in a metric is more than chance, and for the better."""
    mean, error = difference["mean"], difference["error"]
    if error is None:
        return "not to be told from one clip"
    if abs(mean) <= CLEAR * error:
        return "not clearly different"
    return "better" if (mean > 0) == (COLUMNS[key].better == "↑") else "worse"


def long_video_section(result: Mapping[str, Any]) -> str:
    """Chaining against sliding windows: seams, drift, and both segment by segment."""
    methods = result["methods"]
    rows = []
    for name, method in methods.items():
        row = [name, _number(method["seam"]), _number(method["seam_of_truth"])]
        for key in ("psnr_star", "identity"):
            values = method.get(key, {"mean": None, "growth": None})
            row += [_number(values["mean"]), _number(values["growth"], "+.2f")]
        rows.append([*row, f"{method['seconds']:.0f}"])
    head = ["method", "seam ↓", "seam of the truth there", "PSNR* ↑", "per 100 frames", "identity ΔE ↓"]
    parts = [markdown([*head, "per 100 frames", "seconds a video"], rows)]
    for key in ("psnr_star", "identity"):
        lines = [[name, *map(_number, method[key]["by_segment"])] for name, method in methods.items() if key in method]
        if lines:
            columns = [f"{COLUMNS[key].title} {COLUMNS[key].better}, segment", *map(str, range(1, len(lines[0])))]
            parts.append(markdown(columns, lines))
    return "\n\n".join(
        [
            "## First-frame chaining against sliding window (paper, section 5)",
            _circumstances(result),
            f"Means over {', '.join(result['clips'])}. Seam: mean jump (mean absolute difference of successive frames) "
            "across the borders of segments or windows over the mean jump elsewhere, and the same of the truth at the "
            "same frames. Drift: what changes over 100 frames, a straight line through all. The known weakness of "
            "chaining is that colours drift over many segments.",
            *parts,
            "![jump, identity and PSNR* over the frames, dotted lines at the borders](long-video.png)",
        ]
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def loss_plot(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> np.ndarray:
    """Loss over the steps of each network, from the rows of its log: uint8 H W 3."""
    figure = new_figure(8, 4.5, f"matplotlib, or {EVALUATE_EXTRA}")
    axes = figure.add_subplot()
    for number, (title, rows) in enumerate(logs.items()):
        for key, look in {"smoothed": {"alpha": 0.4}, "held_out": {"label": title, "marker": "."}}.items():
            found = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            axes.plot(*np.array(found).reshape(-1, 2).T, color=f"C{number}", **look)
    axes.set(xlabel="step", ylabel="v-prediction MSE: held-out clips (dots), training (pale)", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return draw_figure(figure)


def long_video_plot(curves: Mapping[str, Mapping[str, np.ndarray]], borders: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Jump, identity and PSNR* over the frames, each method's borders as lines of its colour: uint8 H W 3.

    Args:
        curves: Of the truth and each method, numbers f by the keys of `PANELS`.
        borders: Of each method.
    """
    keys = [key for key in PANELS if any(key in row for row in curves.values())]
    figure = new_figure(11, 2.8 * len(keys), f"matplotlib, or {EVALUATE_EXTRA}")
    for axes, key in zip(figure.subplots(len(keys), sharex=True, squeeze=False)[:, 0], keys, strict=True):
        for number, (name, row) in enumerate(curves.items()):
            if key in row:
                axes.plot(row[key], color=f"C{number}", label=name, linewidth=1.3)
            for border in borders.get(name, ()):
                axes.axvline(border - 0.5, color=f"C{number}", linewidth=0.6, linestyle=":")
        axes.set_ylabel(PANELS[key])
        axes.grid(alpha=0.3, axis="y")
        axes.margins(x=0.01)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlabel("frame")
    return draw_figure(figure)


def known(means: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: None for NaN and infinity."""
    return {key: value if math.isfinite(value) else None for key, value in means.items()}


def _circumstances(result: Mapping[str, Any]) -> str:
    shown = {key: "x".join(map(str, v)) if isinstance(v, (list, tuple)) else v for key, v in result["settings"].items()}
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
    packages = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['machine']}; {packages}. Settings: {settings}."


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)
