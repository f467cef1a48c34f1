"""`unianimate train`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from .config_file import read_config


def train(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.")],
) -> None:
    """Train a network on videos with poses, or go on with a run that was stopped.

    On several devices: accelerate launch -m unianimate_core.cli train CONFIG
    """
    run = read_config(config)
    from .loop import train as start

    logging.basicConfig(format="%(message)s")
    logging.getLogger("unianimate_core").setLevel(logging.INFO)
    start(run)
