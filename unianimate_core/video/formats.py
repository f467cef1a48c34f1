"""What a video may be written as: codecs, and the containers that hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError

PICTURES = "png"
"""The name of what is no film: a folder of PNG files."""

CONTAINERS = {
    ".mp4": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".gif": "gif",
    ".webp": "webp",
}
"""FFmpeg's name of each container, by the suffix of the file."""


@dataclass(frozen=True)
class Codec:
    """How frames are stored.

    Attributes:
        encoder: FFmpeg's name; its absence is told before any work.
        pixels: FFmpeg's name of the pixel format.
        suffixes: Of the files that may hold it.
        options: Of the encoder.
        fastest: Frames per second that players show.
    """

    encoder: str
    pixels: str
    suffixes: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    fastest: float = 1000

    @property
    def chroma(self) -> bool:
        """Whether it stores brightness and colour apart, the latter at half the size."""
        return self.pixels.startswith("yuv")


CODECS = {
    "h264": Codec("libx264", "yuv420p", (".mp4", ".mov", ".mkv"), {"crf": "17", "preset": "medium"}),
    "h265": Codec(
        "libx265",
        "yuv420p",
        (".mp4", ".mov", ".mkv"),
        # pools: as with THREADS, the stream depends on it
        {"crf": "18", "preset": "medium", "x265-params": "log-level=none:pools=4"},
    ),
    "prores": Codec("prores_ks", "yuv422p10le", (".mov",), {"profile": "hq"}),
    "ffv1": Codec("ffv1", "bgr0", (".mkv",), {"level": "3"}),
    "vp9": Codec(
        "libvpx-vp9",
        "yuv420p",
        (".webm",),
        {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"},
    ),
    "gif": Codec("gif", "pal8", (".gif",), fastest=50),
    # not libwebp_anim, which holds the whole film in memory until it ends
    "webp": Codec("libwebp", "bgra", (".webp",), {"quality": "90", "compression_level": "4"}, fastest=90),
}
"""By the names that users give; the first that a suffix may hold is that suffix's own."""


def suffixes_of(codec: str | None) -> Iterable[str]:
    """Suffixes that the name of a file may end in; of every codec where none is named.

    Raises:
        InputError: There is no codec of that name.
    """
    if codec is None:
        return CONTAINERS
    if codec not in CODECS:
        raise InputError(f"codec {codec!r} is unknown: choose {', '.join((*CODECS, PICTURES))}")
    return CODECS[codec].suffixes


def codec_for(path: Path, codec: str | None) -> Codec:
    """The codec of that name, or the suffix's own."""
    return CODECS[codec] if codec else next(own for own in CODECS.values() if path.suffix.lower() in own.suffixes)
