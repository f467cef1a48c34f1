"""What moving pictures may come as: a file for FFmpeg, an animated WebP or PNG, pictures in a folder, one picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import InputError
from ..optional import require
from .film import BT709
from .pictures import MAX_PIXELS, read_picture

PICTURE_SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LONGEST_HOLD = Fraction(3600)  # seconds; a larger step between two frames is a damaged time stamp

_UNSPECIFIED = 2
_MATRICES = (0, 1, _UNSPECIFIED, 4, 5, 6, 7, 9)  # the colour matrices that swscale knows, by H.264's codes
_USUAL_INTERVAL = Fraction(1, 25)  # FFmpeg's own, where a file does not tell its rate
_BROWSERS_DELAY = 100  # milliseconds that browsers show a picture whose time is 10 or less
_MOST_STRETCHED = 4  # of a pixel's width to its height; DV's widest is 1.46, more is a damaged tag


class Broken(Exception):
    """A source ended before its end; the message says why, for the end of a sentence in brackets."""


class Shot(NamedTuple):
    """One picture of a source.

    Attributes:
        time: When it is first shown, in seconds; never before the shot that came before it.
        duration: How long, in seconds, where none follows.
        pixels: Makes it: uint8 h w 3, RGB, upright, pixels square. Not called for pictures that are left out.
    """

    time: Fraction
    duration: Fraction
    pixels: Callable[[], np.ndarray]


Shots = Generator[Shot, None, None]


@dataclass(frozen=True)
class Source:
    """Moving pictures, not yet read.

    Attributes:
        width: Of the first picture, upright.
        height: The same.
        fps: Frames per second, the average where they vary; None: its pictures have no times.
        frames: How many there are, as far as the file tells; None: it does not.
        seconds: How long it lasts, as far as the file tells.
        shots: Starts to read, from the beginning; raises `Broken` after the last picture that could be read.
    """

    width: int
    height: int
    fps: Fraction | None
    frames: int | None
    seconds: Fraction | None
    shots: Callable[[], Shots]


def open_source(path: Path) -> Source:
    """Tell what is at a path, and read its first picture.

    Raises:
        InputError: Nothing is there, no picture can be read from it, or PyAV or Pillow is missing.
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.name[0] != "."]
        if not files:
            raise InputError(f"the folder {path} holds no picture: give one of {', '.join(PICTURE_SUFFIXES)} files")
        return _open_pictures(sorted(files, key=number_order))
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _open_animation(path) or _open_pictures([path])
    return _open_film(path)


def number_order(path: Path) -> list[str | int]:
    """A sorting key by which frame_2 comes before frame_10."""
    return [int(part) if n % 2 else part for n, part in enumerate(re.split("([0-9]+)", path.name))]


# Pictures, each a file


def _open_pictures(paths: list[Path]) -> Source:
    height, width = _read_pixels(paths[0]).shape[:2]
    return Source(width, height, None, len(paths), None, partial(_picture_shots, paths))


def _picture_shots(paths: list[Path]) -> Shots:
    for number, path in enumerate(paths):
        try:
            pixels = _read_pixels(path)
        except InputError as error:
            raise Broken(str(error)) from error
        yield Shot(Fraction(number), Fraction(1), partial(np.asarray, pixels))


def _read_pixels(path: Path) -> np.ndarray:
    return (read_picture(path) * 255).round().to(torch.uint8).numpy()  # h w 3


# Animated WebP and PNG: FFmpeg reads no animated WebP


def _open_animation(path: Path) -> Source | None:
    """None: there is no animation in the file; what else is in it, or wrong with it, `read_picture` tells."""
    image_module = require("PIL.Image", "the extra `standalone` of this package")
    try:
        image = image_module.open(path)
    except Exception:  # of many kinds, and `read_picture` meets it again
        return None
    with image:
        width, height = image.size
        if image.format not in ("WEBP", "PNG") or getattr(image, "n_frames", 1) < 2 or width * height > MAX_PIXELS:
            return None
        frames, shown, seconds = image.n_frames, 0, Fraction(0)
    try:
        for shot in _animation_shots(path):
            shown, seconds = shown + 1, seconds + shot.duration
    except Broken as error:
        if not shown:
            raise InputError(f"{path} cannot be read as a picture ({error}): it may be damaged") from error
    return Source(width, height, shown / seconds, frames, seconds, partial(_animation_shots, path))


def _animation_shots(path: Path) -> Shots:
    time, image_module = Fraction(0), require("PIL.Image", "the extra `standalone` of this package")
    with image_module.open(path) as image:
        for number in range(image.n_frames):
            try:
                image.seek(number)
                pixels = np.array(image.convert("RGB"))  # h w 3
            except Exception as error:  # as in read_picture: a decoder meeting damaged data raises nearly anything
                raise Broken(str(error) or type(error).__name__) from error
            delay = image.info.get("duration", 0)
            duration = Fraction(delay if delay > 10 else _BROWSERS_DELAY) / 1000
            yield Shot(time, duration, partial(np.asarray, pixels))
            time += duration


# Films: what FFmpeg reads


def _open_film(path: Path) -> Source:
    with _opened(path, "NONE") as (container, stream):
        try:
            frame = next(_decoded(container, stream), None)
        except Broken as error:
            raise InputError(f"{path} cannot be read as a video ({error}): it may be truncated or damaged") from error
        if frame is None:
            raise InputError(f"{path} has no frames: give another file")
        height, width = _upright(frame, _aspect(stream), _converter()).shape[:2]
        rate = stream.average_rate or stream.guessed_rate
        if frame.pts is None:  # a bare stream: FFmpeg makes its average up
            rate = stream.guessed_rate or rate
        seconds = None
        if stream.duration:
            seconds = stream.duration * stream.time_base
        elif container.duration:
            seconds = Fraction(container.duration, 1_000_000)
        frames = stream.frames or None
        if container.format.name == "gif" and frames and seconds:  # 30 a second are 0.03, 0.03 and 0.04 s
            rate = frames / seconds
        if frames is None and seconds and rate:
            frames = max(1, round(seconds * rate))
        interval = 1 / rate if rate else _USUAL_INTERVAL
    return Source(width, height, rate or 1 / interval, frames, seconds, partial(_film_shots, path, interval))


def _film_shots(path: Path, interval: Fraction) -> Shots:
    shown = 0
    for threads in ("AUTO", "NONE"):  # several lose what they hold where data are broken: one alone then reads on
        try:
            with _opened(path, threads) as (container, stream):
                aspect, converter = _aspect(stream), _converter()
                time = shift = Fraction(0)
                for number, frame in enumerate(_decoded(container, stream)):
                    usual = time + interval if number else time
                    stamp = usual if frame.pts is None else frame.pts * stream.time_base + shift
                    if number and not time <= stamp <= time + LONGEST_HOLD:
                        shift += usual - stamp
                        stamp = usual
                    time = stamp
                    if number >= shown:
                        shown += 1
                        duration = (getattr(frame, "duration", 0) or 0) * stream.time_base  # PyAV 15 on
                        lasts = duration if 0 < duration <= LONGEST_HOLD else interval
                        yield Shot(time, lasts, partial(_upright, frame, aspect, converter))
            return
        except Broken:
            if threads == "NONE":
                raise


@contextmanager
def _opened(path: Path, threads: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first video; what FFmpeg cannot do with them is an InputError."""
    pyav = require("av", "the extra `standalone` of this package")
    if not path.is_file():
        raise InputError(f"no video at {path}: check the path")
    try:
        with pyav.open(str(path)) as container:
            cover = pyav.stream.Disposition.attached_pic
            videos = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not videos:
                raise InputError(f"{path} has no video in it: give another file")
            videos[0].thread_type = threads
            yield container, videos[0]
    except (OSError, pyav.FFmpegError) as error:
        raise InputError(f"{path} cannot be read as a video ({error}): it may be truncated or damaged") from error


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The frames; `Broken` where data are damaged, or where the file ends long before it says that it does."""
    pyav = require("av", "the extra `standalone` of this package")
    end, lost = Fraction(0), 0
    try:
        for packet in container.demux():  # of every stream: the video may end before the sound
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index == stream.index:
                lost += packet.size > 0 and not packet.is_discard
                for frame in packet.decode():
                    lost -= 1
                    yield frame
    except (OSError, pyav.FFmpegError) as error:
        try:
            held_back = stream.codec_context.decode(None)  # later frames were needed to decode these
        except (OSError, pyav.FFmpegError):
            held_back = []
        yield from held_back
        raise Broken(error.strerror or str(error)) from error
    seconds = Fraction(container.duration or 0, 1_000_000)
    if end and end < seconds - max(Fraction(1, 2), 3 / (stream.average_rate or Fraction(25))):
        raise Broken(f"the file ends at {float(end):.1f} of {float(seconds):.1f} s")
    if lost > 0 and stream.thread_type.name != "NONE":  # some codecs have packets for no frame, but threads hide errors
        raise Broken("frames are missing")


def _aspect(stream: Any) -> Fraction:
    """A stored pixel's width to its height; 1 where it is not told, or cannot be."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if Fraction(1, _MOST_STRETCHED) <= aspect <= _MOST_STRETCHED else Fraction(1)


def _converter() -> Any:
    """What converts frames; one for many, as setting it up takes longer than to convert a small frame."""
    return require("av.video.reformatter", "the extra `standalone` of this package").VideoReformatter()


def _upright(frame: Any, aspect: Fraction, converter: Any) -> np.ndarray:
    """To uint8 h w 3, RGB."""
    size = {"width": max(1, round(frame.width * aspect)), "format": "rgb24"}
    if frame.format.is_rgb or frame.format.has_palette:
        converted = converter.reformat(frame, **size)
    else:
        if frame.colorspace not in _MATRICES:
            frame.colorspace = _UNSPECIFIED
        # PyAV before 17 ignores the matrix and the range where those of source and target are equal. RGB has no matrix.
        other = "ITU601" if frame.colorspace == BT709 else "ITU709"
        matrices = {"src_colorspace": int(frame.colorspace), "dst_colorspace": other}
        ranges = {"src_color_range": int(frame.color_range), "dst_color_range": "JPEG"}
        converted = converter.reformat(frame, **size, **matrices, **ranges)
    pixels = converted.to_ndarray()
    if converted is frame:  # the decoder's own, which it may need for the next
        pixels = pixels.copy()
    # A phone stores upright video lying, with the angle beside it, counter-clockwise (known to PyAV from 14.2 on).
    quarters = round((getattr(frame, "rotation", 0) or 0) / 90)
    return np.ascontiguousarray(np.rot90(pixels, quarters))
