"""Motions on disk: JSON files of `POSE_KEYPOINT` frames, folders of OpenPose's files, and CSV tables."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..output import check_folder, rename, replacing
from ..video.sources import number_order
from .export import read_csv
from .keypoints import MotionTrack
from .several import pick_person, split_people


def read_motion(path: str | os.PathLike, person: int = 0, canvas: tuple[int, int] | None = None) -> MotionTrack:
    """Read one person's motion; see `read_pose_frames` for the files, `MotionTrack.from_pose_keypoints` for the rest.

    Args:
        path: A JSON or CSV file, or a folder of JSON files.
        person: Which of several people, from 0, the largest first: people are followed through time, as `split_people`
            does, whatever their places in the lists of single frames.
        canvas: Width and height in pixels, for files that do not name them.

    Raises:
        InputError: The file cannot be read, holds no such person, or is not a motion.
    """
    frames = read_pose_frames(path, canvas)
    try:
        return pick_person(split_people(frames), person)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_pose_frames(path: str | os.PathLike, canvas: tuple[int, int] | None = None) -> list[dict[str, Any]]:
    """Read the frames of a motion.

    Args:
        path: A JSON file with a list of `POSE_KEYPOINT` frames or a single frame, or a folder with one such file, or
            one of OpenPose's, for each frame; its files come in the order of the numbers in their names. Or a table
            whose name ends in .csv, see `export.read_csv`.
        canvas: Width and height in pixels, for frames that do not name them, as OpenPose's do not. A table
            names its own: there, this is passed over.

    Returns:
        `POSE_KEYPOINT` frames: dictionaries with `canvas_width`, `canvas_height` and `people`.

    Raises:
        InputError: The path is missing, a file is empty, is not JSON or holds something else, a folder holds no JSON,
            a table cannot be read, or a canvas is not known.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a JSON or CSV file of pose keypoints, or a folder of JSON.")
    if path.suffix.lower() == ".csv" and path.is_file():
        return read_csv(path).to_pose_keypoints()
    files = [path]
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() == ".json" and not file.name.startswith(".")]
        if not files:
            raise InputError(f"The folder {path} holds no .json file; give one with a JSON file of keypoints a frame.")
    return [_with_canvas(frame, canvas, file) for file in sorted(files, key=number_order) for frame in _load(file)]


def write_motion(track: MotionTrack, path: str | os.PathLike, overwrite: bool = False) -> None:
    """Write a motion, such that `read_motion` gives it back; see `write_pose_frames`."""
    write_pose_frames(track.to_pose_keypoints(), path, overwrite)


def write_pose_frames(frames: Sequence[dict[str, Any]], path: str | os.PathLike, overwrite: bool = False) -> None:
    """Write the frames of a motion, of any number of people, such that `read_pose_frames` gives them back.

    What is at the path is replaced at once, or not at all. A point with a number that is not finite, which JSON does
    not know, is written as 0, 0, 0: absent.

    Args:
        frames: `POSE_KEYPOINT` frames; their numbers may be NumPy's.
        path: A file whose name ends in .json, for one list of `POSE_KEYPOINT` frames; any other name is a folder, made
            with one file for each frame.
        overwrite: Replace what is there: a file, or a folder that holds nothing but .json files.

    Raises:
        InputError: Something is there and `overwrite` is not set, or it is not a motion of the same kind; the frames
            hold what JSON cannot; or it cannot be written.
    """
    path = Path(path)
    is_file = path.suffix.lower() == ".json"
    _check_free(path, is_file, overwrite)
    texts = [_to_json(frame, number) for number, frame in enumerate(frames)]
    check_folder(path.parent)
    if is_file:
        with replacing(path) as partial:
            partial.write_text(f"[{', '.join(texts)}]", encoding="utf-8")
    else:
        _write_folder(texts, path)


def _write_folder(texts: list[str], path: Path) -> None:
    token = secrets.token_hex(4)
    partial, old = (path.with_name(f".{path.name}.{token}.{end}") for end in ("partial", "old"))
    try:
        partial.mkdir()
        for number, text in enumerate(texts):
            (partial / f"frame_{number:06d}.json").write_text(text, encoding="utf-8")
        _replace_folder(partial, path, old)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}): free some space, or choose another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _to_json(frame: dict[str, Any], number: int) -> str:
    try:
        return json.dumps(_plain(frame), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"Frame {number} cannot be written as JSON ({error}); give a POSE_KEYPOINT frame.") from error


def _plain(value: Any, name: str = "") -> Any:
    """What JSON can hold: NumPy's numbers and arrays as Python's, points that are not finite as absent ones."""
    if isinstance(value, dict):
        return {key: _plain(entry, str(key)) for key, entry in value.items()}
    if hasattr(value, "tolist"):  # of NumPy, of PyTorch
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return value
    entries = [_plain(entry) for entry in value]
    if name.endswith("_keypoints_2d"):
        for start in range(0, len(entries) - 2, 3):
            if any(map(_is_missing, entries[start : start + 3])):
                entries[start : start + 3] = [0.0, 0.0, 0.0]
    return entries


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _check_free(path: Path, is_file: bool, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise InputError(f"{path} exists already; give another name, or overwrite=True to replace it.")
    if path.is_dir() == is_file:
        found, wanted = ("folder", "file") if is_file else ("file", "folder")
        raise InputError(f"{path} is a {found}, where the motion would be a {wanted}; give another name.")
    if not is_file:
        other = next((entry.name for entry in path.iterdir() if entry.suffix.lower() != ".json"), None)
        if other is not None:
            raise InputError(f"The folder {path} holds more than a motion ({other}); give another name.")


def _replace_folder(new: Path, path: Path, old: Path) -> None:
    """Move a finished folder to its place; one already there steps aside first, and back if that fails."""
    existed = path.exists()
    if existed:
        rename(path, old)
    try:
        rename(new, path)
    except OSError:
        if existed:
            rename(old, path)
        raise
    if existed:
        shutil.rmtree(old)


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text, so not JSON; give a JSON file of pose keypoints.") from error
    if not text.strip():
        raise InputError(f"{path} is empty; give a JSON file of pose keypoints.")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path} is not JSON: {error.msg} at {where}; mend it or write it anew.") from error
    except (RecursionError, ValueError) as error:  # a hundred thousand brackets, a number of five thousand digits
        raise InputError(f"{path} is JSON of no reasonable kind ({error}); give POSE_KEYPOINT frames.") from error
    frames = content if isinstance(content, list) else [content]
    if not frames:
        raise InputError(f"{path} holds an empty list; give one of POSE_KEYPOINT frames.")
    strange = [frame for frame in frames if not _is_frame(frame)]
    if strange:
        found = f"a list with {_describe(strange[0])} in it" if frames is content else _describe(content)
        raise InputError(f"{path} holds {found}, not pose keypoints; give POSE_KEYPOINT or OpenPose frames.")
    return frames


def _is_frame(value: Any) -> bool:
    return isinstance(value, dict) and ("people" in value or {"canvas_width", "canvas_height"} <= value.keys())


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(list(value)[:5])}" if value else "an object with no keys"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _with_canvas(frame: dict[str, Any], canvas: tuple[int, int] | None, path: Path) -> dict[str, Any]:
    names = ("canvas_width", "canvas_height")
    if None not in map(frame.get, names):
        return frame
    if canvas is None:
        raise InputError(f"{path} does not say how large its canvas is; give its width and height in pixels.")
    if np.shape(canvas) != (2,):
        raise InputError(f"canvas is {canvas!r}; give (width, height), in pixels.")
    return {**frame, **dict(zip(names, canvas, strict=True))}
