"""Whether a file can be written, asked before long work starts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import InputError


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
