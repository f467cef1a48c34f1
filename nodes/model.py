"""UniAnimate as a model of ComfyUI: the one room that speaks to its model management.

A latent is ``f 4 h w``: frames are the batch. Guidance puts the conditional and the unconditional video one after the
other, or runs them apart, as memory allows.
"""

from __future__ import annotations

import math
from dataclasses import replace

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from einops import rearrange

from ..unianimate_core.checkpoint import check_finite, is_safetensors, read_tensors, unet_tensors
from ..unianimate_core.diffusion import Schedule
from ..unianimate_core.unet import Conditions, UNet, UNetConfig
from ..unianimate_core.unet.loading import check_keys
from ..unianimate_core.unet.memory import activation_bytes

CONDITIONS = "unianimate_conditions"
NOISE_PRIOR = "unianimate_noise_prior"
MEMORY_MARGIN = 1.1


class HostUNet(UNet):
    """The network as ComfyUI's sampling calls it."""

    def __init__(self, config: UNetConfig, dtype=None, device=None, operations=None):
        super().__init__(config, operations, attention=optimized_attention, dtype=dtype, device=device)

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        """X (n f) 12 h w with the concat feature joined, context and reference repeated for every frame."""
        options = transformer_options or {}
        executor = WrapperExecutor.new_class_executor(
            self._forward, self, get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        )
        return executor.execute(x, timesteps, context, control, options, **kwargs)

    def _forward(self, x, timesteps, context, control, transformer_options, reference, **kwargs):
        frames = x.shape[0] // len(transformer_options.get("cond_or_uncond", [0]))
        video = rearrange(x, "(n f) c h w -> n c f h w", f=frames)
        with_reference = torch.cat((reference[::frames, :, None], video), dim=2)  # n 12 f+1 h w
        v = self.unified(with_reference, timesteps[::frames], context[::frames])
        return rearrange(v[:, :, 1:], "n c f h w -> (n f) c h w")


class ModelConfig(comfy.supported_models_base.BASE):
    """What ComfyUI asks of a model: latent format, schedule, precisions, memory."""

    unet_extra_config = {}  # noqa: RUF012
    latent_format = comfy.latent_formats.SD15
    sampling_settings = {  # noqa: RUF012
        "beta_schedule": "linear",
        "linear_start": Schedule.beta_start,
        "linear_end": Schedule.beta_end,
        "timesteps": Schedule.steps,
        "zsnr": True,
    }


class UniAnimateModel(comfy.model_base.BaseModel):
    """Computes the condition features once per sampling and hands them to every step."""

    def __init__(self, model_config, device=None):
        super().__init__(model_config, comfy.model_base.ModelType.V_PREDICTION, device=device, unet_model=HostUNet)

    def extra_conds(self, **kwargs):
        """Encode the conditions of one CONDITIONING entry; an entry without ours is unconditional."""
        frames, _, height, width = kwargs["noise"].shape
        conditions = kwargs.get(CONDITIONS) or Conditions()
        given = kwargs.get("cross_attn")
        if conditions.text is not None or CONDITIONS not in kwargs:
            conditions = replace(conditions, text=given)  # other nodes may have changed it on its way
        like = torch.empty((), dtype=self.get_dtype_inference(), device=kwargs["device"])
        like = like.expand(1, self.diffusion_model.config.latent_channels, frames, height, width)
        features = self.diffusion_model.encode_conditions(conditions, like)
        return {
            "c_concat": comfy.conds.CONDNoiseShape(rearrange(features.concat, "1 c f h w -> f c h w")),
            "c_crossattn": comfy.conds.CONDCrossAttn(features.context),
            "reference": comfy.conds.CONDNoiseShape(features.reference),
        }

    def memory_required(self, input_shape, cond_shapes=None):
        """Core's estimate, with the reference frame counted."""
        return super().memory_required([input_shape[0] + 1, *input_shape[1:]], cond_shapes or {})


def noise_prior_wrapper(executor, guider, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs):
    """Start a new video from the reference noised to the prior's timestep, wherever the schedule starts.

    The conditioning's latent is the reference picture in every frame. For a whole schedule, noise is changed so that
    the sampler's own start becomes √ᾱ[p] · reference + √(1 − ᾱ[p]) · noise. One that starts lower (denoise under 1),
    or goes on with a latent that is noised already, is left alone. A prior of 0 is pure noise.
    """
    priors = [cond[NOISE_PRIOR] for conds in guider.conds.values() for cond in conds if NOISE_PRIOR in cond]
    if priors and torch.count_nonzero(noise) > 0:
        timestep, schedule, start = max(priors), Schedule(), float(sigmas[0])
        signal, share = (schedule.signal(timestep), schedule.noise(timestep)) if timestep else (0.0, 1.0)
        if schedule.is_whole(sigmas.tolist()) or (timestep > 0 and schedule.sigma(timestep) < start):
            sampling = guider.inner_model.model_sampling
            from_max = executor.class_obj.max_denoise(guider, sigmas)
            scale = sampling.noise_scaling(sigmas[0], torch.ones(1).to(sigmas), torch.zeros(1).to(sigmas), from_max)
            wanted = (signal * latent_image + share * noise) * math.sqrt(1 + start**2)
            noise = (wanted - latent_image) / scale
    return executor(guider, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs)


def load_model(path: str, dtype: torch.dtype | None = None, disable_dynamic: bool = False):
    """Load a UniAnimate checkpoint as a MODEL, by the steps of core's own diffusion model loader.

    Args:
        path: The checkpoint.
        dtype: Precision of the weights; None lets ComfyUI choose for the card and the file.
        disable_dynamic: Core asks for a plain patcher by it.

    Raises:
        InputError: See `unianimate_core.load_unet`.
    """
    management = comfy.model_management
    tensors = unet_tensors(read_tensors(path)[0], path)  # mapped: only sizes and names are looked at yet
    config = check_keys(tensors, path)

    model_config = ModelConfig({"config": config})
    # Core's formula solved for its factor; the margin is for what the count does not see (workspaces, copies).
    per_cell = activation_bytes(config, 0, 1, 1, torch.float16) / torch.float16.itemsize
    model_config.memory_usage_factor = MEMORY_MARGIN * per_cell / (0.01 * 1024**2)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    supported = list(model_config.supported_inference_dtypes)
    dtype = dtype or management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(tensors),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(tensors),
    )
    model_config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, load_device, supported))

    model = UniAnimateModel(model_config)
    patcher_class = comfy.model_patcher.ModelPatcher
    if not disable_dynamic:
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", patcher_class)
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    if not management.is_device_cpu(offload_device):
        model.to(offload_device)
    if getattr(patcher, "is_dynamic", lambda: False)() and is_safetensors(path):
        tensors = comfy.utils.load_torch_file(path, safe_load=True)  # core's mapping, from which it streams weights
    else:
        tensors = read_tensors(path, dtype, offload_device)[0]
    tensors = unet_tensors(tensors, path)
    check_finite(tensors, path)
    model.diffusion_model.load_state_dict(tensors, assign=True)  # the file's own tensors: nothing is held twice
    patcher.cached_patcher_init = (load_model, (path, dtype))
    patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "unianimate_noise_prior", noise_prior_wrapper)
    return patcher
