"""A motion as a table, for spreadsheets and statistics."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..output import check_output, replacing
from .cleaning.points import MOST_FRAMES, PARTS, is_present, join_points
from .keypoints import BODY_JOINTS, MotionTrack

COLUMNS = ("frame", "time", "part", "joint", "x", "y", "score", "canvas_width", "canvas_height")
_NEEDED = ("frame", "part", "joint", "x", "y", "canvas_width", "canvas_height")

# The lines of a frame: part and joint of each of the 130 points.
_NAMES = (
    *(("body", joint) for joint in BODY_JOINTS),
    *((f"{side}_hand", str(point)) for side in ("left", "right") for point in range(21)),
    *(("face", str(point)) for point in range(68)),
)
_NUMBERS = {name: number for number, name in enumerate(_NAMES)}


def write_csv(track: MotionTrack, path: str | os.PathLike, fps: float = 30.0, overwrite: bool = False) -> None:
    """Write a motion as a table with one line for each point of each frame, such that `read_csv` gives it back.

    Its columns are frame (from 0), time (seconds), part (body, left_hand, right_hand, face), joint (one of
    `BODY_JOINTS`, or a number from 0), x and y (pixels), score (empty where not known), canvas_width and canvas_height
    (pixels). Absent points have no x, y and score. Hands and face are left out if they are absent in every frame.

    Args:
        track: The motion.
        path: A file whose name ends in .csv.
        fps: Frames a second, for the times.
        overwrite: Replace a file that is there.

    Raises:
        InputError: The name ends in something else, a file is there, it cannot be written, or fps is not above 0.
    """
    path = check_output(Path(path), (".csv",), overwrite)
    if not 0 < fps < math.inf:
        raise InputError(f"fps is {fps}: give the frames a second, above 0")
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_lines(track, fps))


def read_csv(path: str | os.PathLike) -> MotionTrack:
    """Read a motion from a table as `write_csv` makes them; edited ones too.

    Columns may stand in any order, and others beside them; time and score are not needed. Lines may stand in any order,
    and be missing: what is not there is absent. Commas or semicolons between the columns are understood.

    Args:
        path: The file.

    Raises:
        InputError: The file cannot be read, a column is missing, or a line holds something else; the line is named.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = ";" if ";" in file.readline() else ","
            file.seek(0)
            return _parse(csv.reader(file, delimiter=separator), path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: give a CSV file as write_csv makes them") from error
    except csv.Error as error:
        raise InputError(f"{path} is not CSV ({error}): give a file as write_csv makes them") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): give a CSV file") from error


def _lines(track: MotionTrack, fps: float) -> Iterator[tuple]:
    pixels = join_points(track) * (track.width, track.height)  # f 130 2
    scores = np.full(pixels.shape[:2], np.nan)  # f 130
    for part, where in PARTS.items():
        known = getattr(track, f"{part}_scores")
        if known is not None:
            scores[:, where] = known.reshape(len(track), -1)
    present = is_present(pixels)  # f 130
    seen = {"body", *(name[0] for number, name in enumerate(_NAMES) if present[:, number].any())}
    shown = [(number, *name) for number, name in enumerate(_NAMES) if name[0] in seen]
    for frame in range(len(track)):
        time = round(frame / fps, 6)
        cells = np.column_stack([pixels[frame], scores[frame]]).tolist()  # 130 3
        for number, part, joint in shown:
            x, y, score = ("" if math.isnan(value) else value for value in cells[number])
            yield frame, time, part, joint, x, y, score if x != "" else "", track.width, track.height


def _parse(lines: Iterator[list[str]], path: Path) -> MotionTrack:
    header = [name.strip() for name in next(lines, [])]
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}: give a table as write_csv makes them")
    columns = [header.index(name) for name in _NEEDED]
    score_column = header.index("score") if "score" in header else None
    places: dict[tuple[int, int], tuple[float, float, float]] = {}  # by frame and point: x, y (pixels), score
    frames, canvas = 0, None
    for number, line in enumerate(lines, 2):
        if not any(line):
            continue
        where = f"{path}, line {number}"
        if len(line) < len(header):
            raise InputError(f"{where} has {len(line)} columns, the first line {len(header)}: mend it or remove it")
        frame_text, part, joint, x, y, *sides = (line[column].strip() for column in columns)
        frame = _number(frame_text, f"{where}: frame")
        if not (frame.is_integer() and 0 <= frame < MOST_FRAMES):
            raise InputError(f"{where}: frame is {frame_text}, give a whole number from 0 to {MOST_FRAMES - 1}")
        point = _NUMBERS.get((part, joint))
        if point is None:
            raise InputError(f"{where}: there is no joint {joint!r} of a part {part!r}; see write_csv for the names")
        size = tuple(_number(side, f"{where}: the canvas's side") for side in sides)
        if not all(side >= 1 and side.is_integer() for side in size):
            raise InputError(f"{where}: the canvas is {sides[0]} x {sides[1]}, give whole pixels, 1 or more")
        canvas = canvas or size
        if size != canvas:
            raise InputError(f"{where}: the canvas is {sides[0]} x {sides[1]}, another than before; give one canvas")
        frames = max(frames, int(frame) + 1)
        if not x and not y:
            continue
        if (int(frame), point) in places:
            raise InputError(f"{where}: {part} {joint} of frame {frame_text} stands there already; remove one of both")
        score = line[score_column].strip() if score_column is not None else ""
        places[int(frame), point] = (
            _number(x, f"{where}: x"),
            _number(y, f"{where}: y"),
            _number(score, f"{where}: score") if score else math.nan,
        )
    if canvas is None:
        raise InputError(f"{path} holds no line but the first: give a table with a motion in it")
    table = np.full((frames, len(_NAMES), 3), np.nan)  # f 130 3
    if places:
        table[tuple(np.array(list(places)).T)] = list(places.values())
    return _track(table, *map(int, canvas))


def _track(table: np.ndarray, width: int, height: int) -> MotionTrack:
    """A track of f 130 3: x, y in pixels, and score, NaN where not known."""
    fields = {}
    for part, where in PARTS.items():
        shape = (len(table), *((2, 21) if part == "hands" else (-1,)))
        points, scores = table[:, where, :2] / (width, height), table[:, where, 2]
        fields[part] = points.reshape(*shape, 2)
        if np.isfinite(scores).any():
            # Lines that someone added without a score count as sure.
            fields[f"{part}_scores"] = np.where(np.isnan(scores) & is_present(points), 1.0, scores).reshape(shape)
    return MotionTrack(**fields, width=width, height=height)


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} is {text!r}, give a number") from None
