"""Compares networks that differ in one thing on the same clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unianimate_core import UNet, console
from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.evaluation.clips import cut_clip, list_videos
from unianimate_core.evaluation.evaluate import evaluate
from unianimate_core.evaluation.pictures import mean_curves, plot_curves
from unianimate_core.evaluation.sources import ModelSource, sha256
from unianimate_core.output import write_picture
from unianimate_core.training.report import read_log

from .budget import NETWORKS, Setup, train
from .tables import known, loss_plot


@dataclass(frozen=True)
class Comparison:
    """Two networks that differ in one thing.

    Attributes:
        title: With the paper's table.
        paper: The paper's choice, a key of `NETWORKS`.
        other: What it is compared with, another.
    """

    title: str
    paper: str
    other: str


COMPARISONS = {
    "reference-pose": Comparison(
        "With and without the reference pose (paper, table 4)", "unified", "without-reference-pose"
    ),
    "reference-network": Comparison(
        "Unified network against a second reference network (paper, table 4)", "unified", "reference-network"
    ),
}


@dataclass(frozen=True)
class Measured:
    """A trained network and what came out.

    Attributes:
        facts: See `train`.
        log: Rows of the training's log.
        report: Of `evaluate`.
    """

    facts: dict[str, Any]
    log: list[dict[str, Any]]
    report: dict[str, Any]


def compare(name: str, setup: Setup, measured: dict[str, Measured]) -> dict[str, Any]:
    """Train both networks of a comparison, as far as they are not trained yet, and measure them.

    Args:
        name: A key of `COMPARISONS`.
        setup: The same for both.
        measured: Networks that were measured before by their keys in `NETWORKS`; those that are measured join them.

    Returns:
        ``settings``, ``networks`` (two, by title: ``parameters``, ``steps``, ``samples``, ``seconds``,
        ``held_out_loss``, ``means``), ``baselines`` (the rows of `evaluate` that are no network), ``differences`` (of
        the other network to the paper's, by metric: ``mean`` and ``error`` over ``clips``).

    Raises:
        InputError: Something in the setup or the data cannot be used.
    """
    comparison = COMPARISONS[name]
    keys = (comparison.paper, comparison.other)
    for key in keys:
        if key not in measured:
            facts, unet = train(key, setup)
            measured[key] = Measured(facts, read_log(setup.output / key / "log.jsonl"), measure(key, unet, setup))
    titles = [NETWORKS[key].title for key in keys]
    networks = [measured[key] for key in keys]
    curves = [
        mean_curves([{"model": clip["rows"]["model"]["per_frame"]} for clip in network.report["videos"]])["model"]
        for network in networks
    ]
    clips = [[clip["rows"]["model"]["mean"] for clip in network.report["videos"]] for network in networks]
    losses = loss_plot({title: network.log for title, network in zip(titles, networks, strict=True)})
    write_picture(plot_curves(dict(zip(titles, curves, strict=True)), comparison.title), setup.output / f"{name}.png")
    write_picture(losses, setup.output / f"{name}-loss.png")
    means = networks[0].report["means"]
    return {
        "settings": setup.described(),
        "networks": {
            title: network.facts | {"means": known(network.report["means"]["model"])}
            for title, network in zip(titles, networks, strict=True)
        },
        "baselines": {row: known(values) for row, values in means.items() if row != "model"},
        "differences": paired_differences(*clips),
    }


def measure(key: str, unet: UNet, setup: Setup) -> dict[str, Any]:
    """Make the clips with a network and measure them; see `evaluate`.

    Frame 0 of each video is the reference picture; those that are made begin at ``setup.start``.
    """
    folder = setup.output / key / "evaluation"
    folder.mkdir(exist_ok=True)
    device = next(unet.parameters()).device
    made_with = {
        "network": key,
        "weights": sha256(setup.output / key / "unianimate.safetensors"),
        "vae": sha256(setup.vae),
        "torch": torch.__version__,
        "device": device.type,
    }
    autoencoder = load_autoencoder(setup.vae, device=device)
    videos = list_videos(setup.evaluation)
    with console.progress_bars() as progress:
        bar = progress.add_task("measuring", total=len(videos))
        return evaluate(
            videos,
            ModelSource(unet, autoencoder, setup.sampling(), 0, folder / "made", made_with),
            lambda clip: cut_clip(clip, setup.size, setup.start, setup.frames, 0, setup.frames),
            folder,
            setup.described(),
            note=console.note,
            advance=lambda: progress.advance(bar),
        )


def paired_differences(
    paper: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """Differences other - paper, clip by clip.

    Args:
        paper: The numbers of each clip by metric.
        other: Those of the same clips.

    Returns:
        By metric the ``mean``, its standard ``error`` (None for one clip) and how many ``clips`` had both numbers.
    """
    found = {}
    for key in paper[0]:
        values = np.array([b[key] - a[key] for a, b in zip(paper, other, strict=True)], np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
            found[key] = {"mean": float(values.mean()), "error": error, "clips": len(values)}
    return found
