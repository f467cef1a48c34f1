"""What is computed once of each video: latents, poses, small pictures, CLIP embeddings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from ..autoencoder import Autoencoder
from ..checkpoint import save_tensors
from ..clip import ClipEncoder
from ..data_folder import Source, read_track
from ..errors import InputError
from ..pose import MotionTrack
from ..video import fit_picture
from ..video.pictures import Box
from ..video.reading import read_video
from .config import DataConfig

FORMAT, CLIP_FORMAT = "1", "2"  # of the cached files, those with CLIP; another one makes them anew
JPEG_QUALITY = 95
GROUP = 8  # pictures encoded at once
FINGERPRINT_BYTES = 1 << 20


class UnusableVideo(InputError):
    """A video that a data set has to do without."""


@dataclass(frozen=True)
class CachedVideo:
    """A video whose latents and poses are ready.

    Attributes:
        name: As the source's.
        path: The cached file.
        frames: How many there are.
    """

    name: str
    path: Path
    frames: int

    def latents(self, index: list[int]) -> Tensor:
        """Scaled latents of some frames, n 4 h w, float32."""
        return self._tensor("latents")[index].float()

    def motion(self, index: list[int]) -> MotionTrack:
        """The poses of some frames."""
        with self._open() as file:
            body, hands = file.get_tensor("body")[index], file.get_tensor("hands")[index]
            width, height = file.get_tensor("canvas").tolist()
        return MotionTrack(body, hands, width=width, height=height)

    def picture(self, index: int) -> np.ndarray:
        """One frame, H W 3, uint8, RGB."""
        with self._open() as file:
            ends = file.get_tensor("jpeg_ends").tolist()
            data = file.get_slice("jpeg")[ends[index - 1] if index else 0 : ends[index]]
        return cv2.cvtColor(cv2.imdecode(data.numpy(), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def image(self, index: int) -> Tensor:
        """CLIP's embedding of one frame, 1024, float32."""
        return self._tensor("image")[index].float()

    def _tensor(self, name: str) -> Tensor:
        with self._open() as file:
            return file.get_tensor(name)  # mapped: only the frames that are taken are read

    def _open(self) -> safe_open:
        return safe_open(self.path, framework="pt")


class Cache:
    """A folder with one file for each video, named by all that its content depends on.

    Args:
        config: Where it is, and for which size.
        device: Where videos are encoded.
    """

    def __init__(self, config: DataConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self._encoders: tuple[Autoencoder, ClipEncoder | None] | None = None
        weights = [config.vae] if config.clip is None else [config.vae, config.clip]
        version = FORMAT if config.clip is None else CLIP_FORMAT
        settings = (version, config.width, config.height, config.fit, *map(_fingerprint, weights))
        self._settings = repr(settings).encode()
        config.cache.mkdir(parents=True, exist_ok=True)

    def get(self, source: Source) -> CachedVideo:
        """A video's cached file, made where it is not there yet.

        Raises:
            UnusableVideo: The video or its motion cannot be used; the message says why.
            InputError: The disk is full, or there is something wrong with the encoders.
        """
        try:
            content = "".join(map(_fingerprint, [source.video, *source.pose_files()]))
        except InputError as error:
            raise UnusableVideo(str(error)) from error
        digest = hashlib.sha256(self._settings + content.encode())
        path = self.config.cache / f"{source.video.stem}-{digest.hexdigest()[:20]}.safetensors"
        frames = _frames(path)
        if frames is None:
            tensors = self._compute(source)
            save_tensors(tensors, path)
            frames = len(tensors["latents"])
        return CachedVideo(source.name, path, frames)

    def _compute(self, source: Source) -> dict[str, Tensor]:
        try:
            frames, _ = read_video(source.video)  # f h w 3
            track = read_track(source, frames)
        except InputError as error:
            raise UnusableVideo(str(error)) from error
        autoencoder, clip = self._load_encoders()
        latents, images, jpegs = [], [], []
        for start in range(0, len(frames), GROUP):
            group = frames[start : start + GROUP]  # g h w 3
            pixels = torch.stack([self._fit(frame)[0] for frame in group])  # g 3 H W
            latents.append(autoencoder.encode(pixels.to(self.device), GROUP).half().cpu())
            jpegs += [_jpeg(picture) for picture in pixels]
            if clip is not None:
                whole = rearrange(torch.from_numpy(group), "g h w c -> g c h w")  # as in use: nothing is cropped
                images.append(clip.encode_image(whole.to(self.device).float() / 255).half().cpu())
        track = track.crop(*self._fit(frames[0])[1])
        tensors = {
            "latents": torch.cat(latents),  # f 4 h w
            "body": torch.from_numpy(track.body).float(),  # f 20 2
            "hands": torch.from_numpy(track.hands).float(),  # f 2 21 2
            "canvas": torch.tensor((self.config.width, self.config.height)),
            "jpeg": torch.from_numpy(np.concatenate(jpegs)),
            "jpeg_ends": torch.tensor([len(jpeg) for jpeg in jpegs]).cumsum(0),
        }
        if not torch.isfinite(tensors["latents"]).all():
            raise InputError(f"{self.config.vae} gives latents that are NaN or infinite: choose another VAE")
        return tensors | ({"image": torch.cat(images)} if images else {})  # f 1024

    def _fit(self, frame: np.ndarray) -> tuple[Tensor, Box]:
        """A frame h w 3 at the working size, 3 H W, 0-1, and the box of it that is shown."""
        width, height = self.config.width, self.config.height
        picture = torch.from_numpy(np.ascontiguousarray(frame)).float() / 255
        if self.config.fit == "crop":
            fitted, box = fit_picture(picture, width, height)
            return rearrange(fitted, "h w c -> c h w").clamp(0, 1), box
        picture = rearrange(picture, "h w c -> 1 c h w")
        fitted = F.interpolate(picture, (height, width), mode="bilinear", antialias=True)[0]
        return fitted.clamp(0, 1), (0.0, 0.0, 1.0, 1.0)

    def _load_encoders(self) -> tuple[Autoencoder, ClipEncoder | None]:
        if self._encoders is None:
            from ..autoencoder import load_autoencoder
            from ..clip import load_clip

            clip = None if self.config.clip is None else load_clip(self.config.clip, device=self.device, text=False)
            self._encoders = load_autoencoder(self.config.vae, device=self.device), clip
        return self._encoders


def _jpeg(picture: Tensor) -> np.ndarray:
    pixels = rearrange(picture * 255, "c h w -> h w c").round().byte().numpy()
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]


def _frames(path: Path) -> int | None:
    """The number of frames in a cached file; None where there is none, or a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_slice("latents").get_shape()[0]
    except (OSError, SafetensorError):
        return None


def _fingerprint(path: Path) -> str:
    """Tells files apart by size, beginning and end, so that large ones need not be read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(FINGERPRINT_BYTES))
            file.seek(max(0, size - FINGERPRINT_BYTES))
            digest.update(file.read())
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): check the path") from error
    return f"{size}:{digest.hexdigest()}"
