"""The network against the public implementation's golden data, and against itself."""

import json
import re
import subprocess
import sys

import psutil
import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from synthetic import GOLDEN, golden_weights, relative_error, synth, synth_weight

from unianimate_core import Conditions, InputError, UNet, UNetConfig, load_unet
from unianimate_core.unet.attention import scaled_dot_product_attention
from unianimate_core.unet.loading import check_keys

TIMESTEP = torch.tensor([521])


@pytest.fixture(scope="module")
def unet() -> UNet:
    return load_unet(golden_weights())


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "unet_small.safetensors")


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    pose = rearrange(synth("dwpose", (1, 3, 6, 128, 96)).sigmoid(), "b c f h w -> b f c h w")
    return {
        "text": synth("zero_y", (1, 77, 1024)),
        "image": synth("image", (1, 1, 1024))[:, 0],
        "pose": pose[:, 1:],
        "reference": synth("randomref", (1, 4, 1, 16, 12))[:, :, 0],
        "reference_pose": pose[:, 0],
        "first_frame": synth("local_image", (1, 3, 1, 128, 96)).sigmoid()[:, :, 0],
    }


LATENT = synth("x", (1, 4, 5, 16, 12))


@pytest.mark.parametrize(
    ("output", "present"),
    [
        ("out.cond", ("text", "image", "pose", "reference", "reference_pose")),
        ("out.uncond", ("text",)),
        ("out.first_frame", ("text", "image", "pose", "reference", "reference_pose", "first_frame")),
    ],
)
@torch.no_grad()
def test_output_equals_the_public_implementation(unet, golden, inputs, output, present):
    v = unet(LATENT, TIMESTEP, **{name: inputs[name] for name in present})
    assert relative_error(v, golden[output]) < 1e-5


@torch.no_grad()
def test_taps_equal_the_public_implementation(unet, golden, inputs):
    taps, hooks = {}, []
    for name in (key.removeprefix("tap.") for key in golden if key.startswith("tap.")):
        module = unet.get_submodule(name)
        hooks.append(module.register_forward_hook(lambda _, args, out, name=name: taps.__setitem__(name, out)))
    unet(LATENT, TIMESTEP, **inputs)
    for hook in hooks:
        hook.remove()
    assert len(taps) == 6
    for name, value in taps.items():
        # The first frame's feature is computed once for all frames; the public implementation repeats it.
        assert relative_error(value.expand_as(golden[f"tap.{name}"]), golden[f"tap.{name}"]) < 1e-5, name


@torch.no_grad()
def test_videos_in_a_batch_equal_single_ones(unet, inputs):
    other = {name: tensor.flip(-1) * 0.7 for name, tensor in inputs.items()}
    both = {name: torch.cat((inputs[name], other[name])) for name in inputs}
    latents, timesteps = torch.cat((LATENT, LATENT.flip(2))), torch.tensor([521, 40])
    batch = unet(latents, timesteps, **both)
    for index, single in enumerate((inputs, other)):
        alone = unet(latents[index : index + 1], timesteps[index : index + 1], **single)
        assert relative_error(batch[index : index + 1], alone) < 1e-5


def test_every_tensor_of_the_public_checkpoint_finds_its_place():
    shapes = json.loads((GOLDEN / "checkpoint_keys.json").read_text())
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert check_keys(tensors) == UNetConfig()
    assert UNet(UNetConfig(), device="meta").state_dict().keys() == shapes.keys()


@pytest.mark.parametrize("drop", ["out.0.bias", "input_blocks.1.1.proj_in.weight", "middle_block.3.emb_layers.1.bias"])
def test_a_missing_tensor_is_named(drop):
    weights = golden_weights()
    del weights[drop]
    with pytest.raises(InputError, match=re.escape(drop)):
        load_unet(weights)


def test_left_over_and_reshaped_tensors_are_named():
    with pytest.raises(InputError, match=r"1 left over \(surprise\)"):
        load_unet(golden_weights() | {"surprise": torch.zeros(1)})
    with pytest.raises(InputError, match=r"out.0.bias \(3,\) instead of \(64,\)"):
        load_unet(golden_weights() | {"out.0.bias": torch.zeros(3)})


def test_levels_mixed_precisions_and_integers(golden, inputs):
    weights = golden_weights()
    mixed = {name: tensor.half() if "attn" in name else tensor for name, tensor in weights.items()}
    unet = load_unet({"state_dict": mixed, "step": 3}, dtype=None)
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.float32}
    present = {name: tensor for name, tensor in inputs.items() if name != "first_frame"}
    with torch.no_grad():
        assert relative_error(unet(LATENT.double(), TIMESTEP, **present), golden["out.cond"]) < 5e-3
    with pytest.raises(InputError, match=r"out.0.bias holds torch.int64 values"):
        load_unet(weights | {"out.0.bias": torch.zeros(64, dtype=torch.int64)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precisions_stay_near_float32(golden, inputs, dtype):
    unet = load_unet(golden_weights(), dtype=dtype)
    present = {name: tensor.to(dtype) for name, tensor in inputs.items() if name != "first_frame"}
    v = unet(LATENT.to(dtype), TIMESTEP, **present)
    assert v.dtype == dtype
    assert relative_error(v.float(), golden["out.cond"]) < {torch.float16: 5e-3, torch.bfloat16: 5e-2}[dtype]


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 8), (3, 9, 13), (2, 15, 7), (1, 1, 1)])
@torch.no_grad()
def test_any_size_and_length(unet, frames, height, width):
    latent = synth("odd", (1, 4, frames, height, width))
    pose = torch.rand(1, frames, 3, 8 * height, 8 * width)
    v = unet(latent, TIMESTEP, text=synth("zero_y", (1, 77, 1024)), pose=pose)
    assert v.shape == latent.shape
    assert torch.isfinite(v).all()


@torch.no_grad()
def test_odd_sizes_are_upsampled_as_by_interpolation_to_the_size(unet):
    down, up = unet.input_blocks[2], unet.output_blocks[3][-1]
    assert down(synth("level", (2, 64, 5, 7))).shape[2:] == (3, 4)
    small = synth("small", (2, 128, 3, 4))
    wide = torch.nn.functional.interpolate(small, size=(5, 7), mode="nearest")
    expected = torch.nn.functional.conv2d(wide, up.conv.weight, up.conv.bias, padding=1)
    assert torch.allclose(up(small, 5, 7), expected, atol=1e-6)


def test_a_condition_that_does_not_fit_is_named(unet, inputs):
    with pytest.raises(InputError, match=r"'pose' has shape 1 4 3 128 96, expected 1 5 3 128 96"):
        unet(LATENT, TIMESTEP, text=inputs["text"], pose=inputs["pose"][:, :4])
    with pytest.raises(InputError, match=r"'text' has shape 1 77 768, expected 1 any 1024"):
        unet(LATENT, TIMESTEP, text=inputs["text"][..., :768])
    with pytest.raises(InputError, match="no text tokens"):
        unet(LATENT, TIMESTEP)


@torch.no_grad()
def test_the_empty_prompt_in_the_checkpoint_serves_where_no_text_is_given(unet, inputs):
    tokens = inputs["text"][0]
    own = load_unet(golden_weights() | {"empty_prompt": tokens})
    assert torch.equal(own(LATENT, TIMESTEP), unet(LATENT, TIMESTEP, text=inputs["text"]))
    assert not torch.equal(own(LATENT, TIMESTEP, text=inputs["text"].flip(1) * 2), own(LATENT, TIMESTEP))


def test_layers_come_from_the_operations_argument():
    made = []

    class Operations:
        def __getattr__(self, name):
            def make(*args, dtype=None, device=None, **kwargs):
                assert dtype == torch.bfloat16
                assert device == "meta"
                made.append(name)
                return getattr(torch.nn, name)(*args, dtype=dtype, device=device, **kwargs)

            return make

    config = UNetConfig(width=64, multipliers=(1, 2), residual_blocks=1, attention_levels=(True, True))
    unet = UNet(config, operations=Operations(), dtype=torch.bfloat16, device="meta")
    layers = [module for module in unet.modules() if next(module.parameters(recurse=False), None) is not None]
    assert len(made) == len(layers)
    assert set(made) == {"Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm"}


def test_attention_in_parts_equals_attention_in_one(monkeypatch):
    q, k, v = (synth(name, (50, 6, 128)) for name in "qkv")
    whole = scaled_dot_product_attention(q, k, v, 2)
    monkeypatch.setattr("unianimate_core.unet.attention.MAX_BATCH", 14)
    assert torch.allclose(scaled_dot_product_attention(q, k, v, 2), whole, atol=1e-6)


@torch.no_grad()
def test_pixel_embedding_in_parts_equals_one_pass(unet, inputs, monkeypatch):
    conditions = Conditions(**inputs)
    whole = unet.encode_conditions(conditions, LATENT)
    monkeypatch.setattr("unianimate_core.unet.conditions.EMBEDDING_ELEMENTS", 1)
    parts = unet.encode_conditions(conditions, LATENT)
    assert torch.allclose(whole.concat, parts.concat, atol=1e-6)


PEAK = """
import resource, sys, torch
from unianimate_core import load_unet
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unet = load_unet(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_loading_holds_the_weights_once(tmp_path, dtype):
    config = UNetConfig(width=192, multipliers=(1, 2, 4), residual_blocks=1, attention_levels=(True, True, True))
    shapes = {name: tensor.shape for name, tensor in UNet(config, device="meta").state_dict().items()}
    weights = {name: synth_weight(name, (1,)).half().expand(shape).clone() for name, shape in shapes.items()}
    file = tmp_path / "unet.safetensors"
    save_file(weights, file)
    size = file.stat().st_size
    assert size > 300 << 20
    assert psutil.virtual_memory().available > 4 * size
    run = subprocess.run([sys.executable, "-c", PEAK, str(file), dtype], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1.25 * size
