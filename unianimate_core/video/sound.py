"""The sound of a video: copied as it is into another, or encoded anew where its container does not take it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..optional import require

_PLAIN = ("aac", "mp3", "ac3", "eac3", "alac")
_COPIED = {
    ".mp4": _PLAIN,
    ".mov": (*_PLAIN, "pcm_s16le", "pcm_s24le"),
    ".mkv": (*_PLAIN, "opus", "vorbis", "flac", "pcm_s16le", "pcm_s24le"),
    ".webm": ("opus", "vorbis"),
}
"""Codecs that players expect in a container, by the suffix."""

_ENCODERS = {".webm": "libopus"}
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_USUAL_RATE = 48000
_BIT_RATE = 192_000
TOLERANCE = 0.2
"""Seconds by which sound and video may differ: codecs pad sound to whole blocks, and rates are rounded."""


class Sound:
    """The first sound of a file.

    Args:
        path: A video or sound file.
        suffix: Of the video that it shall go into.

    Attributes:
        path: As given.
        seconds: How long it lasts; None where the file does not tell.

    Raises:
        InputError: The file is missing or has no sound that can be read, or the container takes none.
    """

    def __init__(self, path: str | Path, suffix: str) -> None:
        self.path = Path(path)
        self._av = require("av", "the extra `standalone` of this package")
        if suffix not in _COPIED:
            raise InputError(f"{suffix or 'a folder of pictures'} holds no sound: give one of {', '.join(_COPIED)}")
        if not self.path.is_file():
            raise InputError(f"no sound at {self.path}: check the path")
        self._copied = _COPIED[suffix]
        self._encoder = _ENCODERS.get(suffix, "aac")
        self._source: Any = None
        self._packets: Iterator[tuple[Fraction, Any]] = iter(())
        self._next: tuple[Fraction, Any] | None = None
        source, stream = self._open()
        with source:
            duration = stream.duration and stream.duration * stream.time_base
            if duration is None and source.duration:
                duration = Fraction(source.duration, 1_000_000)
            self.seconds = None if duration is None else float(duration)

    def check_length(self, seconds: float) -> None:
        """Raise InputError where it does not last as long as a video of so many seconds."""
        if self.seconds is not None and abs(self.seconds - seconds) > TOLERANCE:
            raise InputError(
                f"the sound of {self.path} lasts {self.seconds:.2f} s, the video {seconds:.2f} s: choose fps and the "
                "number of frames so that they match, or cut the sound"
            )

    def start(self, container: Any) -> None:
        """Add a stream for it to a container that is written."""
        self._source, source = self._open()
        # What is shown and heard at one time in the source stays together.
        video = next(iter(self._source.streams.video), None)
        begin = Fraction(0)
        if video is not None and video.start_time is not None:
            begin = video.start_time * video.time_base
        if source.codec_context.name in self._copied:
            stream = container.add_stream_from_template(source)
            self._packets = self._copy(source, stream, begin)
        else:
            context = source.codec_context
            rate = context.sample_rate if context.sample_rate in _RATES else _USUAL_RATE
            rate = _USUAL_RATE if self._encoder == "libopus" else rate
            layout = "mono" if context.layout.nb_channels == 1 else "stereo"
            stream = container.add_stream(self._encoder, rate=rate, layout=layout)
            stream.bit_rate = _BIT_RATE
            self._packets = self._encode(source, stream, begin)
        self._next = None

    def until(self, time: Fraction, container: Any) -> None:
        """Write what begins before a time in seconds."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            if self._next is None or self._next[0] >= time:
                return
            container.mux(self._next[1])
            self._next = None

    def close(self) -> None:
        """Close the file that it comes from."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _open(self) -> tuple[Any, Any]:
        try:
            source = self._av.open(str(self.path))
        except (OSError, self._av.FFmpegError) as error:
            raise InputError(f"{self.path} cannot be read as sound ({error}): it may be damaged") from error
        if not source.streams.audio:
            source.close()
            raise InputError(f"{self.path} has no sound in it: give another file, or leave it out")
        return source, source.streams.audio[0]

    def _copy(self, source: Any, stream: Any, begin: Fraction) -> Iterator[tuple[Fraction, Any]]:
        shift = round(begin / source.time_base)
        for packet in self._source.demux(source):
            if packet.dts is None:  # the end
                continue
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts -= shift
            time = packet.dts * source.time_base
            packet.stream = stream
            yield time, packet

    def _encode(self, source: Any, stream: Any, begin: Fraction) -> Iterator[tuple[Fraction, Any]]:
        shift = round(begin / source.time_base)
        for frame in self._source.decode(source):
            frame.pts = None if frame.pts is None else frame.pts - shift
            for packet in stream.encode(frame):
                yield packet.dts * packet.time_base, packet
        for packet in stream.encode(None):
            yield packet.dts * packet.time_base, packet
