"""`unianimate train-autoencoder`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_autoencoder(
    data: Annotated[Path, typer.Argument(help="Folder of videos, searched with its subfolders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file; rewritten as it gets better.")],
    start: Annotated[Path | None, typer.Option(help="An autoencoder of TAESD's layout to go on from.")] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 10_000,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 16,
    crop: Annotated[int, typer.Option(help="Side of the crops in pixels.")] = 64,
    width: Annotated[int, typer.Option(help="Channels, 1 to 64.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="The highest.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of weights and crops.")] = 0,
    decoder_only: Annotated[
        bool, typer.Option("--decoder-only", help="Leave the encoder as it is: latents made with it stay good.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cuda, cpu, …", show_default="cuda if there is one")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Train a small autoencoder of TAESD's layout, which ComfyUI's Load VAE takes."""
    import math

    from .. import console
    from ..checkpoint import save_tensors
    from ..data_folder import find_sources
    from ..output import check_output
    from .autoencoder import AutoencoderSettings
    from .autoencoder import train_autoencoder as run

    check_output(output, (".safetensors",), overwrite)
    videos = [source.video for source in find_sources((data,))]
    settings = AutoencoderSettings(steps, batch, crop, width, learning_rate, seed, decoder_only)
    with console.progress_bars() as progress:
        bar = progress.add_task("training", total=steps)
        mean = None

        def report(step: int, error: float, rate: float) -> None:
            nonlocal mean
            mean = error if mean is None else 0.99 * mean + 0.01 * error
            progress.update(bar, completed=step, description=f"PSNR {-10 * math.log10(mean):.2f} dB")

        for tensors in run(videos, settings, start, report, console.choose_device(device)):
            half = {name: tensor.half() if tensor.ndim else tensor for name, tensor in tensors.items()}
            save_tensors(half, output, {"format": "pt"})
    console.note(f"Wrote {output}.")
