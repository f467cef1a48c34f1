"""Reads pictures from files and fits them to the working size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..optional import require

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]

MAX_PIXELS = 128 << 20  # 1.6 GB as float RGB; no camera comes near, a decompression bomb does


def read_picture(path: str | Path) -> torch.Tensor:
    """Read a picture file as ComfyUI's LoadImage would.

    The EXIF rotation is applied. An alpha channel is dropped and the RGB under it kept, not composited over anything
    (LoadImage hands alpha out as a mask and leaves the RGB alone). Sixteen-bit grey keeps its precision. An animated
    file gives its first frame.

    Args:
        path: Any picture that Pillow reads: PNG, JPEG, WebP, TIFF, GIF, BMP, ….

    Returns:
        h w 3 float32, RGB in [0, 1].

    Raises:
        InputError: The file is missing, empty, not a picture, truncated, or unreasonably large.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no picture at {path}: check the path")
    if not path.is_file():
        raise InputError(f"{path} is not a file: give a picture")
    image_module = require("PIL.Image", "the extra `standalone` of this package")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes): copy or download it again")
        with image_module.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{path} has {width}×{height} pixels, more than {MAX_PIXELS}: scale it down first")
            pixels = _to_rgb(image)
    except InputError:
        raise
    except (image_module.DecompressionBombError, image_module.DecompressionBombWarning) as error:
        raise InputError(f"{path} has too many pixels ({error}): scale it down first") from error
    except image_module.UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture in a format that Pillow reads: convert it to PNG or JPEG") from error
    except Exception as error:  # a decoder meeting damaged data raises nearly anything
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as a picture ({reason}): it may be truncated or damaged") from error
    return torch.from_numpy(pixels)  # h w 3


def fit_picture(picture: torch.Tensor, width: int, height: int) -> tuple[torch.Tensor, Box]:
    """Crop a picture's centre to an aspect ratio and resize it, bilinearly, without aliasing when shrinking.

    Args:
        picture: h w 3, any range.
        width: Target width in pixels.
        height: Target height in pixels.

    Returns:
        The picture, height width 3 in the dtype it came in, and the box (left, top, right, bottom) of the source that
        remains, as fractions of the source's width and height, so that keypoints can be cropped alike.

    Raises:
        InputError: The picture is not h w 3, or a size is less than 1.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape or not picture.is_floating_point():
        raise InputError(f"a picture must be h w 3 of floats, not {tuple(picture.shape)} of {picture.dtype}")
    if width < 1 or height < 1:
        raise InputError(f"a picture cannot be resized to {width}×{height}: both must be at least 1")
    source_height, source_width = picture.shape[:2]
    crop_width = min(source_width, max(1, round(source_height * width / height)))
    crop_height = min(source_height, max(1, round(source_width * height / width)))
    left, top = (source_width - crop_width) // 2, (source_height - crop_height) // 2
    right, bottom = left + crop_width, top + crop_height
    cropped = picture[top:bottom, left:right].permute(2, 0, 1)[None].float()  # 1 3 h w
    resized = F.interpolate(cropped, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    box = (left / source_width, top / source_height, right / source_width, bottom / source_height)
    return resized.to(picture.dtype).contiguous(), box


def _to_rgb(image: Image.Image) -> np.ndarray:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        # convert("RGB") would clip at 255. Pillow before 11 opens a 16-bit PNG in mode I, later ones in I;16.
        grey = np.asarray(image).astype(np.float32).clip(0, 65535) / 65535
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB")).astype(np.float32) / np.float32(255)
