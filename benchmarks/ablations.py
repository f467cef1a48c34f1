"""The paper's comparisons in small: networks trained under one budget, and two ways to long videos.

Data to train and to measure on, people and motion of the second never seen in the first:

    unianimate puppets data/ablations/train --count 400 --frames 32 --seed 1 --motion samples/dance.json --part 0:180
    unianimate puppets data/ablations/evaluation --count 16 --frames 128 --seed 1001 --motion samples/dance.json \
        --part 180:280 --generated 0 --labels
    python benchmarks/ablations.py --data data/ablations/train --evaluation data/ablations/evaluation

Needs the extras `train` and `evaluate`. With the defaults it takes about an hour on two CPU cores; a GPU is used where
there is one. Stopped, the same command goes on; what is finished is kept. The output folder gets ablations.md,
ablations.json, plots, and a folder for each network.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from ablation.budget import Setup
from ablation.comparison import COMPARISONS, Measured, compare
from ablation.long_video import LongSetup, long_video
from ablation.tables import report

from unianimate_core import InputError, assets, console
from unianimate_core.data_folder import find_sources
from unianimate_core.evaluation.clips import list_videos
from unianimate_core.evaluation.report import versions
from unianimate_core.model_options import choose_models
from unianimate_core.optional import EVALUATE_EXTRA, TRAIN_EXTRA, require
from unianimate_core.output import check_folder, replacing

LONG_VIDEO = "long-video"
SECTIONS = (*COMPARISONS, LONG_VIDEO)
DEFAULT_STEPS = 2000
RESULTS = Path(__file__).parent / "results" / "ablations"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of videos and poses to train on")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder of videos and poses to measure on")
    parser.add_argument("--vae", type=Path, default=assets.SMALL_VAE, help="default: the small one of the package")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--only", default=",".join(SECTIONS), help="what to run; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampling-steps", type=int, default=25, help="of DDIM; default: %(default)s")
    parser.add_argument("--guidance", type=float, help="default: what suits the model; 1 for those trained here")
    networks = parser.add_argument_group("networks")
    budget = networks.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, help=f"of the optimiser, for each network; default: {DEFAULT_STEPS}")
    budget.add_argument("--seconds", type=float, help="of training, for each network, instead of equal steps")
    networks.add_argument("--size", default="64x96", help="width x height; default: %(default)s")
    networks.add_argument("--frames", type=int, default=8, help="of a clip; default: %(default)s")
    networks.add_argument("--start", type=int, default=64, help="first frame to measure; default: %(default)s")
    networks.add_argument("--width", type=int, default=32, help="of the network; default: %(default)s")
    networks.add_argument("--batch", type=int, default=2, help="clips of a step; default: %(default)s")
    long = parser.add_argument_group("long videos")
    long.add_argument("--checkpoint", type=Path, help="UniAnimate weights, of which --vae is; default: the small model")
    long.add_argument("--long-size", help="width x height; default: what suits the model")
    long.add_argument("--long-frames", type=int, default=128, help="default: %(default)s")
    long.add_argument("--long-clips", type=int, default=2, help="how many videos; default: %(default)s")
    long.add_argument("--segment", type=int, default=16, help="frames, one shared; default: %(default)s")
    long.add_argument("--window", type=int, default=16, help="frames; default: %(default)s")
    long.add_argument("--overlap", type=int, default=4, help="frames; default: %(default)s")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Check everything, then run one section after the other; each is in the report as soon as it is finished.

    Raises:
        InputError: An option or the data cannot be used.
    """
    sections = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in sections if name not in SECTIONS]:
        raise InputError(f"--only has {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    for module, remedy in {"matplotlib": TRAIN_EXTRA, "accelerate": TRAIN_EXTRA, "skimage": EVALUATE_EXTRA}.items():
        require(module, remedy)
    list_videos(options.evaluation)
    comparisons = [name for name in COMPARISONS if name in sections]
    setup = _setup(options) if comparisons else None
    long_setup = _long_setup(options) if LONG_VIDEO in sections else None
    truths = long_setup.check() if long_setup else []
    check_folder(options.output)
    results = _read(options.output / "ablations.json")
    made_on = {"machine": _machine(), "versions": versions()}
    if setup is not None:
        measured: dict[str, Measured] = {}
        for name in comparisons:
            results[name] = compare(name, setup, measured) | made_on
            _write(options.output, results)
    if long_setup is not None:
        results[LONG_VIDEO] = long_video(long_setup, truths) | made_on
        _write(options.output, results)
    console.note(f"Wrote {options.output / 'ablations.md'}.")


def _setup(options: argparse.Namespace) -> Setup:
    if options.data is None:
        raise InputError("--data is missing: name the folder of videos to train on")
    find_sources((options.data,))
    setup = Setup(
        options.data,
        options.evaluation,
        options.vae,
        options.output,
        None if options.seconds is not None else DEFAULT_STEPS if options.steps is None else options.steps,
        options.seconds,
        console.parse_size(options.size, "--size"),
        options.frames,
        options.start,
        options.width,
        options.batch,
        options.seed,
        options.sampling_steps,
        assets.SMALL_GUIDANCE if options.guidance is None else options.guidance,
    )
    setup.check()
    return setup


def _long_setup(options: argparse.Namespace) -> LongSetup:
    models = choose_models(options.checkpoint, options.checkpoint and options.vae, None, None, None)
    return LongSetup(
        options.evaluation,
        models,
        options.output,
        console.parse_size(options.long_size or models.size, "--long-size"),
        options.long_frames,
        options.long_clips,
        options.segment,
        options.window,
        options.overlap,
        options.sampling_steps,
        models.guidance if options.guidance is None else options.guidance,
        options.seed,
    )


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _read(path: Path) -> dict[str, Any]:
    """The results of earlier runs."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): remove it, or choose another output") from error


def _write(folder: Path, results: dict[str, Any]) -> None:
    titles = {name: comparison.title for name, comparison in COMPARISONS.items()}
    with replacing(folder / "ablations.md") as file:
        file.write_text(report(results, titles), encoding="utf-8")
    with replacing(folder / "ablations.json") as file:
        file.write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def main() -> None:
    """Run, and say what is wrong."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("unianimate_core").setLevel(logging.INFO)
    try:
        run(parse(None))
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped: the same command goes on.")


if __name__ == "__main__":
    main()
