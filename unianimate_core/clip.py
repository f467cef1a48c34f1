"""Runs OpenCLIP's ViT-H/14: a picture's embedding, and the constant tokens of the empty prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .checkpoint import check_finite, check_shapes, describe, read_tensors
from .errors import InputError
from .optional import require

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIDE = 224
UNUSED = ("logit_scale", "logit_bias", "attn_mask", "text_projection")  # of contrastive training, or computed


def resize_for_clip(pixels: torch.Tensor, side: int = SIDE) -> torch.Tensor:
    """Squeeze pictures b 3 H W to b 3 side side: bilinear, without aliasing and without a crop, whatever the aspect."""
    return F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)


class ClipEncoder:
    """CLIP's two towers, of which either may be absent.

    Args:
        model: An ``open_clip`` CLIP whose weights are loaded.
        vision: Whether its vision tower may be used.
        text: Whether its text tower may be used.
    """

    def __init__(self, model: torch.nn.Module, vision: bool, text: bool) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.vision = vision
        self.text = text

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pictures: pooled and projected, not normalised (ComfyUI's ``image_embeds``).

        Args:
            pixels: b 3 H W, RGB in [0, 1]; resized to 224 × 224 without a crop.

        Returns:
            b 1024 (the model's embedding width), float32, on the pixels' device.

        Raises:
            InputError: Another shape, or the vision tower was not loaded.
        """
        if not self.vision:
            raise InputError("this CLIP was loaded without its vision tower: load it with vision=True")
        if pixels.ndim != 4 or pixels.shape[1] != 3 or 0 in pixels.shape or not pixels.is_floating_point():
            raise InputError(f"pixels must be b 3 H W of floats, not {tuple(pixels.shape)} of {pixels.dtype}")
        weight = self.model.visual.conv1.weight
        side = self.model.visual.image_size
        side = side if isinstance(side, int) else side[0]
        resized = resize_for_clip(pixels.float(), side)  # b 3 side side
        mean, std = (resized.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        embedding = self.model.encode_image(((resized - mean) / std).to(weight))
        return embedding.float().to(pixels.device)

    @torch.no_grad()
    def empty_prompt(self) -> torch.Tensor:
        """The empty prompt's tokens after the last block but one and the final norm.

        Returns:
            77 × 1024 (tokens × text width), float32, on the CPU. The same for every video: keep it.

        Raises:
            InputError: The text tower was not loaded.
        """
        if not self.text:
            raise InputError("this CLIP was loaded without its text tower: load it with text=True")
        model = self.model
        length, vocabulary = model.positional_embedding.shape[0], model.token_embedding.weight.shape[0]
        weight = model.positional_embedding
        tokens = torch.zeros(1, length, dtype=torch.long, device=weight.device)
        tokens[0, :2] = torch.tensor([vocabulary - 2, vocabulary - 1])  # start and end of text; the rest is padding
        hidden = model.token_embedding(tokens) + model.positional_embedding  # 1 length width
        mask = torch.full((length, length), float("-inf")).triu(1).to(weight)
        blocks = list(model.transformer.resblocks)
        batch_first = blocks[0].attn.batch_first  # open_clip before 2.27 had the tokens first
        hidden = hidden if batch_first else hidden.transpose(0, 1)
        for block in blocks[:-1]:
            hidden = block(hidden, attn_mask=mask)
        hidden = hidden if batch_first else hidden.transpose(0, 1)
        return model.ln_final(hidden)[0].float().cpu()


def load_clip(
    path: str | Path,
    model_name: str = "ViT-H-14",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    vision: bool = True,
    text: bool = True,
) -> ClipEncoder:
    """Load an OpenCLIP checkpoint, or the tower of it that is needed.

    Args:
        path: ``open_clip_pytorch_model.bin`` or ``.safetensors``: the tensors under open_clip's names.
        model_name: The configuration's name in open_clip.
        dtype: Computing precision.
        device: Where it computes.
        vision: Load the vision tower (ViT-H/14: 632 M parameters).
        text: Load the text tower (354 M parameters).

    Returns:
        The encoder.

    Raises:
        InputError: The file is something else, tensors are missing or left over, or open_clip is missing.
    """
    open_clip = require("open_clip", "the extra `clip` of this package")
    config = open_clip.get_model_config(model_name)
    if config is None:
        raise InputError(f"open_clip has no model {model_name!r}: UniAnimate uses ViT-H-14")
    tensors, _ = read_tensors(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if "visual.conv1.weight" not in tensors and "token_embedding.weight" not in tensors:
        raise InputError(
            f"{path} is {describe(tensors).kind}, not an OpenCLIP model: give the open_clip_pytorch_model.bin (or "
            ".safetensors) of CLIP-ViT-H-14-laion2B-s32B-b79K"
        )
    with torch.device("meta"):  # no memory and no random numbers for weights that the file brings
        model = open_clip.CLIP(
            config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=config.get("quick_gelu", False)
        )

    def needed(name: str) -> bool:
        return name not in UNUSED and (vision if name.startswith("visual.") else text)

    wanted = {name: tensor for name, tensor in model.state_dict().items() if needed(name)}
    given = {name: tensor for name, tensor in tensors.items() if needed(name)}
    check_shapes(given, wanted, f"{path} is not OpenCLIP's {model_name}")
    check_finite(given, str(path))
    if not vision:
        del model.visual
    if not text:
        del model.transformer, model.token_embedding, model.positional_embedding, model.ln_final
    del model.text_projection, model.attn_mask, model.logit_scale
    model.load_state_dict(given, assign=True)
    return ClipEncoder(model.to(device=device, dtype=dtype), vision, text)
