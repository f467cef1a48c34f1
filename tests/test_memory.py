"""Memory of the forward pass: groups change no result, the peak stays low, and the model of it tells it."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from peak import LiveBytes, counted_bytes, network_inputs, with_mamba
from safetensors.torch import load_file
from synthetic import GOLDEN, golden_weights, relative_error, synth
from torch.nn import functional as F

from unianimate_core import Conditions, InputError, UNet, UNetConfig, load_unet, sample
from unianimate_core.ssm import MambaSizes
from unianimate_core.unet import memory
from unianimate_core.unet.groups import WORKING_BYTES, affine, over_frames
from unianimate_core.unet.memory import (
    LEAST_WORKING_BYTES,
    activation_bytes,
    choose_working_bytes,
    fitted_to_memory,
    require_memory,
)

GB = 10**9
SMALL = UNetConfig(
    width=64,
    multipliers=(1, 2),
    residual_blocks=1,
    attention_levels=(True, True),
    first_temporal_width=128,
    context_width=32,
    image_width=32,
)
MIXED = dataclasses.replace(SMALL, mamba={"input_blocks.0.1": MambaSizes(256), "output_blocks.1.2": MambaSizes(128)})


def random_unet(config: UNetConfig = SMALL, dtype: torch.dtype = torch.float32) -> UNet:
    torch.manual_seed(0)
    return UNet(config, dtype=dtype).eval().requires_grad_(False)


def random_inputs(dtype: torch.dtype, videos: int, frames: int, height: int, width: int):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(videos, 12, frames, height, width, generator=generator, dtype=torch.float64).to(dtype)
    context = torch.randn(videos, 9, 32, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.tensor([521, 3])[:videos], context


@pytest.fixture(scope="module")
def unet() -> UNet:
    return load_unet(golden_weights())


@pytest.mark.parametrize("working_bytes", [1, 200_000])
@torch.no_grad()
def test_in_groups_the_output_equals_the_public_implementation(unet, working_bytes, monkeypatch):
    pose = synth("dwpose", (1, 3, 6, 128, 96)).sigmoid().transpose(1, 2)
    reference = synth("randomref", (1, 4, 1, 16, 12))[:, :, 0]
    monkeypatch.setattr(unet, "working_bytes", working_bytes)
    v = unet(
        synth("x", (1, 4, 5, 16, 12)),
        torch.tensor([521]),
        text=synth("zero_y", (1, 77, 1024)),
        image=synth("image", (1, 1, 1024))[:, 0],
        pose=pose[:, 1:],
        reference=reference,
        reference_pose=pose[:, 0],
    )
    assert relative_error(v, load_file(GOLDEN / "unet_small.safetensors")["out.cond"]) < 1e-5


@pytest.mark.parametrize("config", [SMALL, MIXED], ids=["transformer", "mixed"])
@pytest.mark.parametrize(("videos", "frames", "height", "width"), [(1, 6, 8, 4), (2, 5, 7, 3), (1, 1, 3, 5)])
@pytest.mark.parametrize("working_bytes", [1, 50_000])
@torch.no_grad()
def test_groups_change_no_result_and_no_input(config, videos, frames, height, width, working_bytes):
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        unet, inputs = random_unet(config, dtype), random_inputs(dtype, videos, frames, height, width)
        given = [tensor.clone() for tensor in inputs]
        unet.working_bytes = None
        whole = unet.unified(*inputs)
        unet.working_bytes = working_bytes
        assert relative_error(unet.unified(*inputs), whole) < tolerance
        assert all(torch.equal(tensor, before) for tensor, before in zip(inputs, given, strict=True))


@torch.no_grad()
def test_groups_in_half_precision_are_as_near_the_truth_as_the_whole():
    inputs = random_inputs(torch.bfloat16, 1, 6, 8, 4)
    unet = random_unet(dtype=torch.bfloat16)
    truth = random_unet(dtype=torch.bfloat16).double()
    truth = truth.unified(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs))
    errors = []
    for unet.working_bytes in (None, 1):
        errors.append(relative_error(unet.unified(*inputs), truth))
    assert errors[1] < 1.5 * errors[0] < 0.1


def test_with_gradients_nothing_is_overwritten_and_they_stay_right():
    gradients = []
    for working_bytes, checkpointing in ((None, False), (1, False), (1, True)):
        unet = random_unet(dtype=torch.float64).requires_grad_()
        unet.working_bytes, unet.gradient_checkpointing = working_bytes, checkpointing
        inputs = random_inputs(torch.float64, 2, 3, 5, 4)
        unet.unified(*inputs).square().sum().backward()
        gradients.append({name: p.grad for name, p in unet.named_parameters() if p.grad is not None})
    assert len(gradients[0]) > 100
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("working_bytes", [None, 1, 10_000])
@torch.no_grad()
def test_a_norm_over_frames_equals_its_formula(working_bytes):
    norm = torch.nn.GroupNorm(4, 12, eps=1e-3)
    norm.weight.copy_(synth("weight", (12,)))
    norm.bias.copy_(synth("bias", (12,)))
    video = synth("video", (2, 7, 12, 5, 3)) * 0.1 + 30  # b f c h w; far from a mean of 0
    made = over_frames(norm, video, working_bytes)(video[:, :, :, 1:4])
    groups = video.double().numpy().reshape(2, 7, 4, 3, 5, 3)
    mean = groups.mean(axis=(1, 3, 4, 5), keepdims=True)
    normalised = (groups - mean) / np.sqrt(groups.var(axis=(1, 3, 4, 5), keepdims=True) + 1e-3)
    scale, bias = (p.double().numpy().reshape(12, 1, 1) for p in (norm.weight, norm.bias))
    expected = (normalised.reshape(2, 7, 12, 5, 3) * scale + bias)[:, :, :, 1:4]
    assert relative_error(made, torch.from_numpy(expected)) < 1e-4  # float32 at 30 has steps of 2e-6 of 0.1


@torch.no_grad()
def test_a_hosts_changes_to_a_norms_weights_are_seen():
    class Host(torch.nn.GroupNorm):
        """Keeps its weights in another precision and patches them when it is called."""

        def forward(self, x):
            weight, bias = self.weight.to(x.dtype) * 2 + 0.25, self.bias.to(x.dtype) - 1
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)

    norm = Host(2, 6, dtype=torch.bfloat16)
    norm.weight.copy_(torch.arange(6) - 2)
    norm.bias.copy_(torch.arange(6) / 4)
    weight, bias = affine(norm, torch.empty(0))
    assert torch.allclose(weight, torch.arange(6) * 2 - 3.75, atol=1e-5)
    assert torch.allclose(bias, torch.arange(6) / 4 - 1, atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "height", "width", "most", "mamba"),
    [
        (32, 64, 96, 5 * GB, False),
        (32, 96, 152, 10 * GB, False),
        (360, 64, 96, 24 * GB, False),
        (360, 64, 96, 24 * GB, True),
    ],
)
def test_the_public_network_keeps_within_its_bounds(frames, height, width, most, mamba):
    config, size = UNetConfig(), (frames, height, width, torch.float16, WORKING_BYTES)
    if mamba:
        config = with_mamba(config)
    weights = sum(parameter.numel() for parameter in UNet(config, device="meta").parameters()) * 2
    counted = counted_bytes(config, *size)
    assert weights + counted < most
    # What the middle block waits with, at full size and at 1/2, 1/4, 1/8, and one layer's work: nothing else.
    skips = (frames + 1) * height * width * 320 * 2 * (3 + (1 + 2 + 2) / 4 + (2 + 4 + 4) / 16 + (4 + 4 + 4) / 64)
    assert skips < counted < 1.1 * skips + 1.1 * WORKING_BYTES
    assert activation_bytes(config, *size) == pytest.approx(counted, rel=0.15)


CONFIGS = {
    "small": SMALL,
    "no attention": dataclasses.replace(SMALL, attention_levels=(False, False)),
    "one level": dataclasses.replace(SMALL, multipliers=(2,), attention_levels=(True,)),
    "deep": dataclasses.replace(
        SMALL, width=32, multipliers=(1, 2, 3), residual_blocks=2, attention_levels=(True, False, True)
    ),
    "mamba": MIXED,
}


@pytest.mark.parametrize(("name", "dtype"), [*((name, torch.float16) for name in CONFIGS), ("small", torch.float32)])
def test_the_model_of_the_peak_is_near_the_counted_one(name, dtype):
    config = CONFIGS[name]
    for size in ((16, 48, 32, dtype, 1 << 23), (40, 17, 21, dtype, 1 << 22), (5, 24, 16, dtype, WORKING_BYTES)):
        assert activation_bytes(config, *size) == pytest.approx(counted_bytes(config, *size), rel=0.15), size


def test_the_peak_counted_on_meta_is_that_of_real_tensors():
    for working_bytes in (None, 1 << 20):
        size = SMALL, 8, 24, 16, torch.float32, working_bytes
        assert counted_bytes(*size) == pytest.approx(counted_bytes(*size, device="cpu"), rel=0.02)


def test_a_batch_of_videos_takes_no_more_work_space():
    size = 16, 24, 16, torch.float16, 1 << 21
    one, two = (counted_bytes(SMALL, *size, videos=videos) for videos in (1, 2))
    assert two < 2 * one
    assert two == pytest.approx(activation_bytes(SMALL, 2 * 17 - 1, *size[1:]), rel=0.15)


def test_no_float32_copy_of_a_half_precision_video_is_made():
    class Largest(LiveBytes):
        largest = 0

        def _count(self, storage, size):
            self.largest = max(self.largest, size)
            super()._count(storage, size)

    unet = UNet(SMALL, dtype=torch.float16, device="meta", attention=lambda q, k, v, heads: torch.empty_like(q))
    unet.working_bytes = 1 << 18
    hidden = 9 * 24 * 16 * 64 * 2
    inputs = network_inputs(SMALL, 8, 24, 16, torch.float16, "meta")
    with torch.no_grad(), Largest() as counter:
        unet.unified(*inputs)
    assert counter.largest == hidden


def test_what_a_layer_may_hold_is_chosen_from_free_memory(monkeypatch):
    size = UNetConfig(), 32, 64, 96, torch.float16
    least = activation_bytes(*size)
    assert choose_working_bytes(*size, None) == WORKING_BYTES
    assert choose_working_bytes(*size, 100 * GB) == WORKING_BYTES
    assert choose_working_bytes(*size, 0) == LEAST_WORKING_BYTES
    assert choose_working_bytes(*size, least + (1 << 30)) == 1 << 29
    free = least + (1 << 29)
    assert activation_bytes(*size, choose_working_bytes(*size, free)) <= free

    unet = random_unet()
    monkeypatch.setattr(memory, "available_bytes", lambda device: 100 * GB)
    for most in (None, 1000, WORKING_BYTES):
        unet.working_bytes = most
        with fitted_to_memory(unet, 4, 8, 8):
            assert unet.working_bytes == most
    monkeypatch.setattr(memory, "available_bytes", lambda device: 0)
    with fitted_to_memory(unet, 4, 8, 8):
        assert unet.working_bytes == LEAST_WORKING_BYTES
    assert unet.working_bytes == WORKING_BYTES


def test_sampling_holds_no_more_than_is_free(monkeypatch):
    unet, seen = random_unet(), []
    monkeypatch.setattr(memory, "available_bytes", lambda device: 0)
    unet.out[0].register_forward_pre_hook(lambda *_: seen.append(unet.working_bytes))
    sample(unet, torch.zeros(1, 4, 2, 8, 8), Conditions(text=torch.zeros(1, 3, 32)), steps=1)
    assert set(seen) == {LEAST_WORKING_BYTES}
    assert unet.working_bytes == WORKING_BYTES


def test_what_does_not_fit_is_refused_with_numbers(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 3 << 30)
    require_memory(3 << 30, torch.device("cpu"), "a video", "Lower --frames")
    text = "a video would take about 4.5 GiB; 3.0 GiB are free on cpu. Lower --frames"
    with pytest.raises(InputError, match=re.escape(text)):
        require_memory(9 << 29, torch.device("cpu"), "a video", "Lower --frames")


@pytest.mark.parametrize("working_bytes", [WORKING_BYTES, 150_000])
@torch.no_grad()
def test_it_compiles_as_one_graph(working_bytes):
    config = dataclasses.replace(SMALL, width=32, multipliers=(1,), attention_levels=(True,), first_temporal_width=32)
    unet = random_unet(config)
    unet.working_bytes = working_bytes
    latent, text = torch.randn(1, 4, 3, 8, 6), torch.randn(1, 5, 32)
    features = unet.encode_conditions(Conditions(text=text), latent)
    torch._dynamo.reset()
    compiled = torch.compile(unet.denoise, fullgraph=True, backend="eager")
    arguments = latent, torch.tensor([7]), features
    assert relative_error(compiled(*arguments), unet.denoise(*arguments)) < 1e-6
