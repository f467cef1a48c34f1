"""The finished segments of a long video, kept beside it until it is whole, so that a run that ended goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from .checkpoint import read_tensors, save_tensors
from .errors import InputError
from .long_video import Made
from .output import replacing
from .video import VideoReader, VideoWriter

_NOTE = "made_with.json"
_LATENTS = "latents"


class SegmentFolder:
    """A folder ``NAME.partial`` beside a video ``NAME``: lossless films of the segments, and what they were made with.

    Every file in it is whole: it was written under a temporary name. It belongs to one video; two runs must not make
    the same video at the same time.

    Args:
        output: The video that is made.

    Attributes:
        path: The folder; it is there from `begin` to `remove`.
        unfinished: Where the video itself may be written, before it gets its name.
    """

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f"{output.name}.partial")
        self.unfinished = self.path / ".video.partial"
        self._made_with: dict[str, Any] = {}
        self._count = 0

    def check(self, made_with: Mapping[str, Any], discard: bool) -> None:
        """Look at what is there, and change nothing.

        Args:
            made_with: All that the segments depend on, to be compared with what is there; JSON's types.
            discard: Whether segments that were made with something else may be thrown away.

        Raises:
            InputError: They are there, and may not.
        """
        self._made_with = json.loads(json.dumps(made_with))
        if self.path.exists() and not self.path.is_dir():
            raise InputError(
                f"{self.path} is a file, where unfinished videos are kept: move it, or choose another name"
            )
        kept = self._note()
        if kept is None or discard or not self._film(0).exists():
            return
        if differing := self._differing(kept.get("made_with", {})):
            raise InputError(
                f"{self.path} holds segments of an unfinished video made with other {', '.join(differing)}: go on with "
                "the same, pass --overwrite to begin anew, or choose another name"
            )

    def begin(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """Make the folder, or go on with the one that is there; after `check`.

        Args:
            choices: What was left open, and chosen for this run.

        Returns:
            The choices of the run that began it.

        Raises:
            InputError: It cannot be written.
        """
        kept = self._note()
        if kept is None or self._differing(kept.get("made_with", {})):
            self._clear()
            kept = {"made_with": self._made_with, "choices": dict(choices)}
            try:
                self.path.mkdir(exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot make the folder {self.path} ({error.strerror or error})") from error
            with replacing(self.path / _NOTE) as file:
                file.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        for partial in self.path.glob(".*.partial"):  # of a run that was killed
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        while self._film(self._count).exists():
            self._count += 1
        return kept["choices"]

    def __len__(self) -> int:
        """Segments that are whole."""
        return self._count

    def read(self, number: int) -> Made:
        """A segment.

        Raises:
            InputError: It is damaged.
        """
        latents = read_tensors(self._tensors(number))[0][_LATENTS].clone()
        with VideoReader(self._film(number)) as reader:
            frames = [torch.from_numpy(frame) for frame in reader]
        if len(frames) != len(latents):
            raise InputError(f"{self._film(number)} is damaged: remove it, and the same command makes it anew")
        return Made(torch.stack(frames), latents)

    def add(self, made: Made) -> None:
        """Keep the next segment.

        Raises:
            InputError: It cannot be written; those before it are still there.
        """
        film = self._film(self._count)
        save_tensors({_LATENTS: made.latents.contiguous()}, self._tensors(self._count))
        with VideoWriter(film, made.frames.shape[2], made.frames.shape[1], overwrite=True, lossless=True) as writer:
            writer.write(made.frames)  # the last of the two: where it is, the segment is whole
        self._count += 1

    def remove(self) -> None:
        """Remove all that was written into the folder, and the folder itself where nothing else is in it."""
        self._clear()
        self._count = 0

    def _clear(self) -> None:
        if not self.path.is_dir():
            return
        with suppress(OSError):  # another program looks at a film: it does no harm that it stays
            for file in [*self.path.glob("segment_*"), *self.path.glob(".*.partial"), self.path / _NOTE]:
                shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
            self.path.rmdir()

    def _film(self, number: int) -> Path:
        return self.path / f"segment_{number:05d}.mkv"

    def _tensors(self, number: int) -> Path:
        return self.path / f"segment_{number:05d}.safetensors"

    def _note(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.path / _NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _differing(self, made_with: Mapping[str, Any]) -> list[str]:
        names = {*made_with, *self._made_with}
        return sorted(name for name in names if made_with.get(name) != self._made_with.get(name))
