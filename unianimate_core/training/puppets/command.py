"""`unianimate puppets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def puppets(
    folder: Annotated[Path, typer.Argument(help="Gets the videos and their poses; an interrupted run goes on.")],
    count: Annotated[int, typer.Option(help="Clips; each shows another person.")] = 100,
    frames: Annotated[int, typer.Option(help="Frames of each clip.")] = 16,
    size: Annotated[str, typer.Option(help="Width x height, multiples of 8.")] = "128x192",
    seed: Annotated[int, typer.Option(help="Same seed, same people.")] = 0,
    motion: Annotated[
        list[Path] | None, typer.Option(help="Driving motion (POSE_KEYPOINT or OpenPose JSON); may be repeated.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="The motions' frames to use, first:end, as 0:180.", show_default="all")
    ] = None,
    generated: Annotated[float, typer.Option(help="Share of clips that move by a generated motion, 0 to 1.")] = 0.5,
    exact: Annotated[
        bool, typer.Option("--exact", help="Every clip shows all of one motion, neither mirrored, retimed nor mixed.")
    ] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Also write which body part covers each pixel, for `unianimate evaluate`.")
    ] = False,
) -> None:
    """Draw synthetic people who move, with exact poses: data to train and to evaluate on."""
    from ... import console
    from ...pose import read_motion
    from .dataset import Recipe, write_puppets

    first, end = _range(part)
    tracks = [read_motion(path)[first:end] for path in motion or ()]
    recipe = Recipe(*console.parse_size(size, "--size"), frames, seed, tracks, generated, exact)
    with console.progress_bars() as progress:
        bar = progress.add_task("clips", total=count)
        write_puppets(folder, recipe, count, labels, lambda done, _: progress.update(bar, completed=done))
    console.note(f"{folder} has {count} clips of {frames} frames.")


def _range(part: str | None) -> tuple[int | None, int | None]:
    from ...errors import InputError

    if part is None:
        return None, None
    first, _, end = part.partition(":")
    try:
        return int(first or 0), int(end) if end else None
    except ValueError:
        raise InputError(f"--part is {part!r}: write first:end, for example 0:180") from None
