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
from ..unianimate_core.unet.config import PIXELS_PER_LATENT
from ..unianimate_core.unet.groups import WORKING_BYTES
from ..unianimate_core.unet.loading import check_keys
from ..unianimate_core.unet.memory import activation_bytes, choose_working_bytes

CONDITIONS = "unianimate_conditions"
NOISE_PRIOR = "unianimate_noise_prior"
MEMORY_MARGIN = 1.1  # over the network's own count, for what that does not see: workspaces, an allocator's gaps


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


class ConcatFeature(comfy.conds.CONDNoiseShape):
    """Pose and first-frame feature of one sampling, f 8 h w, computed when they are asked for.

    Of a video in context windows, they are asked for by windows alone, and computed on each window's frames, as the
    network was trained. They are kept until they are four times the whole video's size; the oldest then go.
    """

    def __init__(self, network: HostUNet, conditions: Conditions, like: torch.Tensor):
        self.network, self.conditions, self.like = network, conditions, like
        self.computed: dict[tuple[int, ...], torch.Tensor] = {}

    @property
    def cond(self) -> torch.Tensor:
        """That of all frames at once, f 8 h w."""
        return self.of_frames(tuple(range(self.like.shape[2])))

    def _copy_with(self, cond):
        return comfy.conds.CONDNoiseShape(cond)

    def of_frames(self, frames: tuple[int, ...]) -> torch.Tensor:
        """That of some frames, in their order, len(frames) 8 h w."""
        if frames not in self.computed:
            while self.computed and sum(map(len, self.computed)) + len(frames) > 4 * self.like.shape[2]:
                del self.computed[next(iter(self.computed))]
            self.computed[frames] = rearrange(self._compute(frames), "1 c f h w -> f c h w")
        return self.computed[frames]

    def _compute(self, frames: tuple[int, ...]) -> torch.Tensor:
        pose, first_frame = self.conditions.pose, self.conditions.first_frame
        shape = (1, self.network.config.concat_channels, len(frames), *self.like.shape[3:])
        feature = self.like.new_zeros(shape)  # 1 8 f h w
        if pose is not None:
            consecutive = frames == tuple(range(frames[0], frames[0] + len(frames)))  # a view of them, no copy
            part = pose[:, frames[0] : frames[-1] + 1] if consecutive else pose[:, list(frames)]
            feature = feature + self.network.encode_pose(part, self.like)
        if first_frame is not None:
            feature = feature + self.network.encode_first_frame(first_frame, self.like)
        return feature


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
        network, device, dtype = self.diffusion_model, kwargs["device"], self.get_dtype_inference()
        like = torch.empty((), dtype=dtype, device=device)
        like = like.expand(1, network.config.latent_channels, frames, height, width)
        free = comfy.model_management.get_free_memory(device)
        network.working_bytes = choose_working_bytes(network.config, frames, height, width, dtype, free)
        conditions.check(network.config, 1, frames, height, width)
        reference = network.encode_reference(conditions.reference, conditions.reference_pose, like)
        return {
            "c_concat": ConcatFeature(network, conditions, like),
            "c_crossattn": comfy.conds.CONDCrossAttn(network.encode_context(conditions.text, conditions.image, like)),
            "reference": comfy.conds.CONDNoiseShape(reference),
        }

    def resize_cond_for_context_window(self, cond_key, cond_value, window, x_in, device, retain_index_list=()):
        """Give core's context windows their frames' features; reference and tokens are the same in every window."""
        if not isinstance(cond_value, ConcatFeature):
            return None
        frames = list(window.index_list)
        if getattr(window, "causal_anchor_index", None) is not None:  # a frame in front, whose prediction is cut
            frames.insert(0, window.causal_anchor_index)
        for kept in retain_index_list:
            frames[kept] = kept
        return comfy.conds.CONDNoiseShape(cond_value.of_frames(tuple(frames)))

    def memory_required(self, input_shape, cond_shapes=None):
        """Core's estimate, for the area that would hold as much as ours if nothing ran in groups."""
        frames, *_, height, width = input_shape
        config, dtype = self.diffusion_model.config, self.get_dtype_inference()
        values = activation_bytes(config, frames, height, width, dtype, WORKING_BYTES) / dtype.itemsize
        return super().memory_required([1, 1, values / values_per_cell(config)], cond_shapes or {})


def values_per_cell(config: UNetConfig) -> float:
    """Values that the network holds at its peak for each cell of a latent video when nothing runs in groups."""
    side = config.downscale // PIXELS_PER_LATENT
    return activation_bytes(config, 0, side, side, torch.float16) / torch.float16.itemsize / side**2


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
    # Core's formula solved for its factor.
    model_config.memory_usage_factor = MEMORY_MARGIN * values_per_cell(config) / (0.01 * 1024**2)
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
