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
_LOCK = ".lock"


class SegmentFolder:
    """A folder ``NAME.partial`` beside a video ``NAME``: lossless films of the segments, and what they were made with.

    Every file in it is whole: it was written under a temporary name. It belongs to one video, and from `begin` to
    `release` to one run.

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
        self._lock: Any = None

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
            what = f"made with other {', '.join(differing)}" if "made_with" in kept else f"whose {_NOTE} is damaged"
            raise InputError(
                f"{self.path} holds segments of an unfinished video {what}: go on with the same, pass --overwrite to "
                "begin anew, or choose another name"
            )

    def begin(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """Make the folder, or go on with the one that is there; after `check`.

        Args:
            choices: What was left open, and chosen for this run.

        Returns:
            The choices of the run that began it.

        Raises:
            InputError: It cannot be written, or another run is at work in it. Segments that are there stay.
        """
        try:
            self.path.mkdir(exist_ok=True)
            self._take()
            kept = self._note()
            if kept is None or self._differing(kept.get("made_with", {})):
                self._discard()
                kept = {"made_with": self._made_with, "choices": dict(choices)}
                with replacing(self.path / _NOTE) as file:
                    file.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot use the folder {self.path} ({error.strerror or error}): close what has its files open, or "
                "choose another name"
            ) from error
        while self._film(self._count).exists() and self._tensors(self._count).exists():
            self._count += 1
        with suppress(OSError):
            self._remove_partial()  # of a run that was killed
        return kept["choices"]

    def __len__(self) -> int:
        """Segments that are whole."""
        return self._count

    def read(self, number: int) -> Made:
        """A segment.

        Raises:
            InputError: It is damaged.
        """
        film = self._film(number)
        try:
            latents = read_tensors(self._tensors(number))[0][_LATENTS].clone()
            with VideoReader(film) as reader:
                frames = [torch.from_numpy(frame) for frame in reader]
        except (InputError, KeyError) as error:
            raise InputError(f"segment {film} is damaged ({error}): remove it, and the same command goes on") from error
        if len(frames) != len(latents):
            raise InputError(f"segment {film} is damaged: remove it, and the same command makes it anew")
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
        self._count = 0
        self.release()
        with suppress(OSError):  # another program looks at a film: it does no harm that it stays
            self._discard()
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def release(self) -> None:
        """Let other runs in."""
        if self._lock is not None:
            self._lock.release()

    def _take(self) -> None:
        """Keep other runs out; the system lets go of it when this process ends, however it does."""
        import filelock  # a dependency of PyTorch

        self._lock = filelock.FileLock(self.path / _LOCK)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(
                f"another run makes the same video in {self.path}: wait for it, or choose another name"
            ) from None
        except NotImplementedError:  # a file system without locks
            self._lock = None

    def _discard(self) -> None:
        """Remove the segments, the note first: what stays where one cannot be removed belongs to nothing."""
        (self.path / _NOTE).unlink(missing_ok=True)
        for file in self.path.glob("segment_*"):
            file.unlink()
        self._remove_partial()

    def _remove_partial(self) -> None:
        for partial in self.path.glob(".*.partial"):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()

    def _film(self, number: int) -> Path:
        return self.path / f"segment_{number:05d}.mkv"

    def _tensors(self, number: int) -> Path:
        return self.path / f"segment_{number:05d}.safetensors"

    def _note(self) -> dict[str, Any] | None:
        """What the folder was made with; None where it is new, empty where that cannot be read."""
        try:
            note = json.loads((self.path / _NOTE).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            return {}
        except OSError as error:
            raise InputError(f"cannot read {self.path / _NOTE} ({error.strerror or error}): try again") from error
        return note if isinstance(note, dict) else {}

    def _differing(self, made_with: Mapping[str, Any]) -> list[str]:
        names = {*made_with, *self._made_with}
        return sorted(name for name in names if made_with.get(name) != self._made_with.get(name))
