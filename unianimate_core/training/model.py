"""What is trained: the network at its start, the loss, the learning rate, the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..checkpoint import check_finite, read_tensors, unet_tensors
from ..clip import load_clip
from ..errors import InputError
from ..unet import UNet, UNetConfig
from ..unet.config import EMPTY_PROMPT
from ..unet.loading import check_keys, new_unet, with_temporal
from .config import RunConfig, TrainingConfig

PROMPT_TOKENS = 77  # of CLIP's empty prompt, where a new network brings random ones instead


def build_unet(config: RunConfig) -> tuple[UNet, list[str]]:
    """The network at the start of a run, float32.

    Returns:
        The network, and the names of its tensors that no checkpoint gave.

    Raises:
        InputError: The checkpoint cannot be used, or there are no tokens of the empty prompt.
    """
    tensors: dict[str, Tensor] = {}
    base = UNetConfig(prompt_tokens=PROMPT_TOKENS)
    if config.model.checkpoint is not None:
        name = str(config.model.checkpoint)
        tensors = unet_tensors(read_tensors(config.model.checkpoint)[0], name)
        check_finite(tensors, name)
        base = UNetConfig.from_tensors(tensors) if config.model.sizes else check_keys(tensors, name)
        if EMPTY_PROMPT not in tensors:
            if config.data.clip is None:
                raise InputError(
                    f"{name} does not bring the empty prompt's tokens: give [data] clip (OpenCLIP ViT-H/14), or store "
                    "them in it once with `unianimate convert --clip`"
                )
            tensors[EMPTY_PROMPT] = load_clip(config.data.clip, vision=False).empty_prompt()  # 77 d
            base = replace(base, prompt_tokens=len(tensors[EMPTY_PROMPT]))
    sizes = config.model.unet(base)
    if len(sizes.multipliers) != len(sizes.attention_levels):
        raise InputError(
            f"[model] multipliers has {len(sizes.multipliers)} levels, attention_levels "
            f"{len(sizes.attention_levels)}: give both, as many"
        )
    if config.model.temporal or config.model.sizes:
        sizes = with_temporal(sizes, base, config.model.temporal)
    unet, new = new_unet(sizes, config.seed, tensors)
    if config.data.clip is None:
        unet.pre_image_condition.requires_grad_(False)  # never used: no decay, no gradient to wait for
    return unet, new


def v_loss(predict: Callable[[Tensor], Tensor], latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Mean squared error of the predicted v of each clip (arXiv 2202.00512, appendix D).

    Args:
        predict: From noised latents b 4 f h w to v, b 4 f h w.
        latents: b 4 f h w, scaled.
        noise: b 4 f h w.
        alphas: b; ᾱ of each clip's timestep.

    Returns:
        b, float32.
    """
    alphas = alphas.view(-1, 1, 1, 1, 1)
    alpha, sigma = alphas.sqrt().to(latents), (1 - alphas).sqrt().to(latents)  # b 1 1 1 1
    v = predict(alpha * latents + sigma * noise)
    target = alpha * noise - sigma * latents
    return (v.float() - target.float()).square().mean(dim=(1, 2, 3, 4))


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0."""
    rate = config.learning_rate * min(1.0, (step + 1) / (config.warmup + 1))
    done = max(0.0, (step - config.warmup) / max(1, steps - config.warmup))
    match config.schedule:
        case "cosine":
            rate *= (1 + math.cos(math.pi * done)) / 2
        case "linear":
            rate *= 1 - done
    return rate


class ExponentialAverage:
    """An exponential moving average of a network's parameters, float32, beside them on their device.

    Args:
        unet: The network.
        decay: Of the average; early on it is lower, so that the first weights are soon forgotten.
    """

    def __init__(self, unet: UNet, decay: float) -> None:
        self.names = [name for name, _ in unet.named_parameters()]
        self.parameters = list(unet.parameters())
        self.values = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self.parameters, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The averages by the parameters' names."""
        return dict(zip(self.names, self.values, strict=True))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averages that were stored."""
        for name, value in self.state().items():
            value.copy_(state[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the network for a while."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.values[index] = self.values[index], parameter.data


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors by name, without gradients."""
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}
