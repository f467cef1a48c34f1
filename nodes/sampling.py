"""The exact sampling of the public implementation, by core's own sampler nodes."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from einops import rearrange

from ..unianimate_core.diffusion import Schedule, offset_noise
from ..unianimate_core.diffusion.noise import OFFSET
from ..unianimate_core.errors import InputError

CATEGORY = "UniAnimate/sampling"


class UniAnimateScheduler(io.ComfyNode):
    """DDIM's timesteps as SIGMAS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A model and a number of steps."""
        return io.Schema(
            node_id="UniAnimateScheduler",
            display_name="UniAnimate Scheduler",
            category=CATEGORY,
            description="The sigmas that the public implementation walks. With the euler sampler, a CFG of 2.5 and "
            "UniAnimate Noise, SamplerCustomAdvanced does the public implementation's DDIM.",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="25 to 50 are usual. 1000 // steps is the stride, so 30 makes 31 steps.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Under 1: only the last share of the steps, to refine a latent video.",
                ),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model, steps: int, denoise: float) -> io.NodeOutput:
        """Sigmas at the DDIM timesteps, ending on timestep 0 as the public implementation does."""
        table = model.get_model_object("model_sampling").sigmas.cpu()
        if len(table) != Schedule.steps:
            raise InputError(
                f"the model has {len(table)} timesteps, not {Schedule.steps}: load it with Load UniAnimate Model"
            )
        timesteps = Schedule().ddim_timesteps(steps)
        kept = max(1, round(len(timesteps) * denoise))
        return io.NodeOutput(table[[*timesteps[-kept:], 0]])


class OffsetNoise:
    """NOISE with one number per channel and frame added, as the weights were trained."""

    def __init__(self, seed: int, strength: float) -> None:
        self.seed = seed
        self.strength = strength

    def generate_noise(self, input_latent: dict) -> torch.Tensor:
        """Noise f 4 h w for a latent of that shape; the same numbers as the library draws from this seed."""
        frames, channels, height, width = input_latent["samples"].shape
        generator = torch.Generator().manual_seed(self.seed)
        noise = offset_noise((1, channels, frames, height, width), generator, self.strength)
        return rearrange(noise, "1 c f h w -> f c h w")


class UniAnimateNoise(io.ComfyNode):
    """The noise of the public implementation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A seed and the offset's strength."""
        return io.Schema(
            node_id="UniAnimateNoise",
            display_name="UniAnimate Noise",
            category=CATEGORY,
            description="Noise with an offset per frame, as the weights were trained, for SamplerCustomAdvanced. The "
            "conditioning's noise_prior mixes it with the reference picture.",
            inputs=[
                io.Int.Input(
                    "noise_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed gives the same video.",
                ),
                io.Float.Input(
                    "offset",
                    default=OFFSET,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the number per channel and frame; 0.1 is what the weights know, 0 plain noise.",
                ),
            ],
            outputs=[io.Noise.Output()],
        )

    @classmethod
    def execute(cls, noise_seed: int, offset: float) -> io.NodeOutput:
        """A source of noise; it draws when the sampler asks."""
        return io.NodeOutput(OffsetNoise(noise_seed, offset))


NODES = [UniAnimateScheduler, UniAnimateNoise]
