"""Files that are whole or not there, and whether they can be written, asked before long work starts."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

RENAME_TRIALS = 5


def check_output(path: str | Path, suffixes: Iterable[str], overwrite: bool = False) -> Path:
    """Make sure that a file can be written here.

    Args:
        path: The file to write.
        suffixes: Those that its name may end in, in lower case.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path.

    Raises:
        InputError: The suffix is unknown, the file exists, or the folder is missing or cannot be written to.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path} must end in one of {', '.join(suffixes)}")
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder: give a file name")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists: choose another name, or pass --overwrite")
        if not path.parent.is_dir():
            raise InputError(f"there is no folder {path.parent}: create it first")
        with tempfile.TemporaryFile(dir=path.parent):  # permissions alone do not tell: a read-only mount, a full disk
            pass
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}): choose another place") from error
    return path


def check_folder(path: str | Path) -> Path:
    """Make sure that files can be written into a folder, which is made where it is missing.

    Returns:
        The path.

    Raises:
        InputError: It cannot be made, or not be written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {path} ({error.strerror or error}): choose another place") from error
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name that is given; it gets its own when it is whole.

    Raises:
        InputError: It cannot be written; what was there before is still there.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        rename(partial, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}): free some space, or choose another place"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file; on Windows again where a virus scanner holds it for a moment."""
    for trial in range(1, RENAME_TRIALS + 1):
        try:
            source.replace(target)
            return
        except PermissionError:
            if trial == RENAME_TRIALS:
                raise
            time.sleep(0.1 * trial)


def remove_partial(folder: Path, age: float = 0.0) -> None:
    """Remove what processes that were killed left in a folder under temporary names.

    Args:
        folder: One without such files, or a missing one, is left as it is.
        age: Seconds since a file was written, below which another process may still be at work on it.
    """
    for partial in folder.glob(".*.partial"):
        try:
            if time.time() - partial.stat().st_mtime >= age:
                partial.unlink()
        except OSError:  # another process was faster, or has it open on Windows
            continue


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write a PNG, whole or not at all.

    Args:
        picture: uint8 H W 3, RGB.
        path: The file; one that is there is replaced.

    Raises:
        InputError: It cannot be written.
    """
    import cv2

    done, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise InputError(f"{path}: a picture of {picture.shape} cannot be written as PNG")
    with replacing(path) as partial:  # not by imwrite, which knows no letters beyond Windows' own
        partial.write_bytes(png.tobytes())
