"""Writes frames as pictures in a folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..output import check_output, write_picture

NAME = "{:06d}.png"


def check_picture_folder(path: str | Path, overwrite: bool = False) -> Path:
    """Make sure that a folder of pictures can be made here.

    Args:
        path: The folder.
        overwrite: Whether one that is there may be replaced; only where nothing but numbered PNG files is in it.

    Returns:
        The path.

    Raises:
        InputError: It is there and may not be replaced, its parent is missing or cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        if not overwrite:
            raise InputError(f"{path} exists: choose another name, or pass --overwrite")
        if strange := [file.name for file in path.iterdir() if not re.fullmatch(r"\d+\.png", file.name)]:
            raise InputError(f"{path} holds {strange[0]}, which is no frame: choose another folder")
        check_output(path / NAME.format(0), (".png",), overwrite=True)
    else:
        check_output(path.with_name(f"{path.name}.png"), (".png",), overwrite=True)  # its parent
        if path.exists():
            raise InputError(f"{path} is a file: give a folder for the pictures")
    return path


class PictureFolder:
    """A folder of PNG files, 000000.png onwards; what `Film` is for a file.

    Args:
        path: The folder, which is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        path.mkdir()

    def add(self, pixels: np.ndarray) -> None:
        """Write a frame, uint8 h w 3."""
        write_picture(pixels, self.path / NAME.format(self.frames))
        self.frames += 1

    def finish(self) -> None:
        """Every picture is whole already."""

    def discard(self) -> None:
        """Remove all."""
        shutil.rmtree(self.path, ignore_errors=True)
