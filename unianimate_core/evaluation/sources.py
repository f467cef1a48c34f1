"""Where the videos come from that are compared with the truth: a model that makes them, or a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from ..animate import Settings, animate
from ..autoencoder import Autoencoder
from ..clip import ClipEncoder
from ..diffusion.ddim import Callback
from ..errors import InputError
from ..output import replacing
from ..pose import MotionTrack
from ..unet import UNet
from ..unet.config import PIXELS_PER_LATENT
from ..unet.memory import activation_bytes, require_memory
from ..video import VideoWriter, read_video
from .clips import Clip, GroundTruth, fit_frames
from .metrics import as_uint8, check_pair


class ModelSource:
    """Animates the reference picture of each clip by the clip's own motion.

    The videos are kept, lossless, as ``<name>.mkv`` with what they were made with in ``<name>.json``. One that was made
    with the same is read, not made again; so an evaluation that was stopped goes on.

    Args:
        unet: From `load_unet`.
        autoencoder: From `load_autoencoder`.
        settings: How to sample, and the first frame of each clip; the number of frames is each clip's own.
        reference: The frame that is the reference picture.
        folder: Where the videos are kept; made if it is missing.
        made_with: All that the videos depend on beside ``settings`` and the clip, to be compared with what is kept.
        encoder: For the picture's embedding, which is left out where None.
        text: Tokens of the empty prompt, 77 x 1024, where the checkpoint does not bring them.
        callback: See `sample`.
    """

    needs_poses = True

    def __init__(
        self,
        unet: UNet,
        autoencoder: Autoencoder,
        settings: Settings,
        reference: int,
        folder: Path,
        made_with: Mapping[str, Any],
        encoder: ClipEncoder | None = None,
        text: torch.Tensor | None = None,
        callback: Callback | None = None,
    ) -> None:
        self.unet, self.autoencoder, self.encoder = unet, autoencoder, encoder
        self.settings, self.reference, self.text, self.callback = settings, reference, text, callback
        self.folder = folder
        self.made_with = dict(made_with)
        self.reused = 0

    def check(self, clip: Clip, truth: GroundTruth) -> None:
        """Raise InputError where the clip's poses cannot drive a video, or it takes more memory than there is."""
        track, settings = _track(clip), self._settings(truth)
        try:
            settings.check_motion(track)
        except InputError as error:
            raise InputError(f"{clip.path}: {error}") from error
        if not track[self.reference].present.any():
            raise InputError(f"{clip.path}: its poses show nobody in the reference frame {self.reference}")
        height, width = settings.height // PIXELS_PER_LATENT, settings.width // PIXELS_PER_LATENT
        weight = next(self.unet.parameters())
        needed = activation_bytes(self.unet.config, settings.frames, height, width, weight.dtype)
        what = f"{clip.path}: {settings.frames} frames of {settings.width} x {settings.height}"
        require_memory(needed, weight.device, what, "Choose a smaller size, or fewer frames")

    def verify(self, clip: Clip, truth: GroundTruth) -> None:
        """There is nothing to be wrong before it is made."""

    def videos(self, clip: Clip, truth: GroundTruth) -> dict[str, np.ndarray]:
        """``model``, what was made; and ``autoencoder``, the truth encoded and decoded."""
        made_with = self.made_with | {
            "settings": asdict(self._settings(truth)),
            "reference frame": self.reference,
            "video": sha256(clip.path),
            "poses": sha256(*clip.source.pose_files()),
        }
        video, note = self.folder / f"{truth.name}.mkv", self.folder / f"{truth.name}.json"
        made = _kept(video, note, made_with, truth)
        if made is None:
            made = self._make(clip, truth)
            video.parent.mkdir(parents=True, exist_ok=True)
            note.unlink(missing_ok=True)  # never beside a video that it does not describe
            with VideoWriter(video, made.shape[2], made.shape[1], truth.fps, overwrite=True, lossless=True) as writer:
                writer.write(made)
            with replacing(note) as file:
                file.write_text(json.dumps(made_with, indent=1), encoding="utf-8")
        else:
            self.reused += 1
        return {"model": made, "autoencoder": self._rebuild(truth.frames)}

    def _settings(self, truth: GroundTruth) -> Settings:
        return replace(self.settings, frames=len(truth.frames))

    def _make(self, clip: Clip, truth: GroundTruth) -> np.ndarray:
        assert truth.track is not None
        picture = torch.from_numpy(np.ascontiguousarray(clip.frames[self.reference])) / 255  # h w 3
        track = _track(clip)
        standing = replace(track[self.reference], width=picture.shape[1], height=picture.shape[0])
        image = None
        if self.encoder is not None:
            image = self.encoder.encode_image(rearrange(picture, "h w c -> 1 c h w"))[0]
        groups = animate(
            self.unet,
            self.autoencoder,
            picture,
            truth.track,
            replace(self._settings(truth), start=0),
            standing,
            image,
            self.text,
            self.callback,
        )
        return as_uint8(torch.cat(list(groups)), f"the video made of {truth.name}")

    def _rebuild(self, frames: np.ndarray) -> np.ndarray:
        rebuilt = []
        for frame in frames:
            pixels = rearrange(torch.from_numpy(np.ascontiguousarray(frame)), "h w c -> 1 c h w") / 255
            decoded = self.autoencoder.decode(self.autoencoder.encode(pixels))
            rebuilt.append(as_uint8(rearrange(decoded, "1 c h w -> 1 h w c"), "the autoencoder's picture"))
        return np.concatenate(rebuilt)


class FolderSource:
    """Reads videos that were made elsewhere.

    Args:
        videos: The made videos, by the names of the true ones.
        size: Width and height that they are cropped and resized to; None: they must have the size of the truth.
    """

    needs_poses = False

    def __init__(self, videos: Mapping[str, Path], size: tuple[int, int] | None) -> None:
        self.files, self.size = videos, size

    def check(self, clip: Clip, truth: GroundTruth) -> None:
        """Every clip that can be read can be used."""

    def verify(self, clip: Clip, truth: GroundTruth) -> None:
        """Raise InputError where the video cannot be read, or has another number or size of frames than the truth."""
        self.videos(clip, truth)

    def videos(self, clip: Clip, truth: GroundTruth) -> dict[str, np.ndarray]:
        """``predictions``; InputError as `verify`."""
        path = self.files[truth.name]
        frames, _ = read_video(path)
        if self.size is not None:
            frames = fit_frames(frames, *self.size)
        check_pair(frames, truth.frames, (str(path), f"the part of {clip.path} to compare it with"))
        return {"predictions": frames}


def sha256(*paths: Path) -> str:
    """Of the contents of some files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _track(clip: Clip) -> MotionTrack:
    if clip.track is None:
        raise InputError(f"{clip.path} has no poses: give {clip.path.stem}.json beside it")
    return clip.track


def _kept(video: Path, note: Path, made_with: Mapping[str, Any], truth: GroundTruth) -> np.ndarray | None:
    """A video made before with the same, if there is a whole one."""
    try:
        if json.loads(note.read_text(encoding="utf-8")) != json.loads(json.dumps(made_with)):
            return None
        frames, _ = read_video(video)
    except (OSError, ValueError):  # no such file, no JSON, or (InputError) no video
        return None
    return frames if frames.shape == truth.frames.shape else None
