"""Temporal Mamba: the block against another library's, checkpoints of both kinds, memory, training."""

import dataclasses
import math
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from comfy_server import ComfyServer
from graphs import ROOT, TOKENS, exact, graph, in_the_library, latents
from safetensors.torch import load_file, save_file
from synthetic import golden_weights, relative_error, synth, synth_weight
from torch.utils.flop_counter import FlopCounterMode
from training_run import config_of, curve, make_videos, train

from unianimate_core import Conditions, InputError, UNet, UNetConfig, load_unet, sample
from unianimate_core.assets import SMALL_UNET
from unianimate_core.checkpoint import read_tensors
from unianimate_core.ssm import BidirectionalMamba, MambaSizes
from unianimate_core.training.config_file import read_config
from unianimate_core.training.model import build_unet
from unianimate_core.unet.loading import check_keys, describe_temporal, new_unet, with_temporal
from unianimate_core.unet.temporal_mamba import TemporalMamba

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = UNetConfig(
    width=32,
    multipliers=(1, 2),
    residual_blocks=1,
    attention_levels=(True, False),
    first_temporal_width=64,
    context_width=16,
    image_width=12,
    embedding_width=8,
    prompt_tokens=3,
)
BARE = ("A_log", "A_b_log", "D", "D_b")  # belong to no layer
SHARED = ("in_proj.weight", "out_proj.weight")
ONE_WAY = ("conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D")


def mamba_weights(config=CONFIG, kinds=None):
    """Weights by the golden data's recipe for a network with Mamba, decays and steps in their usual ranges."""
    config = with_temporal(config, config, "mamba") if kinds is None else dataclasses.replace(config, mamba=kinds)
    network = UNet(config, device="meta").state_dict()
    weights = {name: synth_weight(name, tensor.shape) for name, tensor in network.items()}
    for name, weight in weights.items():
        if name.endswith("_log"):
            weights[name] = math.log(4) + 0.5 * synth(name, weight.shape)
        elif name.rpartition(".")[0].removesuffix("_b").endswith("dt_proj") and weight.ndim == 1:
            weights[name] = weight - 3
        elif name.endswith("mamba.out_proj.weight"):
            # At 1, the two channels of a norm happen to agree where the reference is absent: errors grow a hundredfold.
            weights[name] = 0.3 * weight
    return weights


def of_direction(name, backwards):
    if name in SHARED or not backwards:
        return name
    stem, dot, rest = name.partition(".")
    return "A_b_log" if stem == "A_log" else f"{stem}_b{dot}{rest}"


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_block_is_two_of_transformers_mamba(dtype):
    modeling = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    width, sizes = 24, MambaSizes(inner=40, state=6, conv=3, rank=5)
    torch.manual_seed(0)
    block = BidirectionalMamba(width, sizes, torch.nn, dtype=dtype)
    for parameter in block.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    weights = block.state_dict()
    config = modeling.MambaConfig(
        hidden_size=width, state_size=6, expand=2, conv_kernel=3, time_step_rank=5, use_mambapy=False
    )
    config.intermediate_size = sizes.inner
    x = torch.randn(5, 9, width, dtype=dtype)
    expected = 0
    for backwards in (False, True):
        other = modeling.MambaMixer(config, layer_idx=0).to(dtype).eval()
        other.load_state_dict({name: weights[of_direction(name, backwards)] for name in (*SHARED, *ONE_WAY)})
        directed = x.flip(1) if backwards else x
        y = other(directed)
        expected = expected + (y.flip(1) if backwards else y)
    assert relative_error(block(x), expected) < (
        1e-5 if dtype == torch.float32 else 1e-6
    )  # its exponentials are float32


def test_new_blocks_are_initialised_as_mamba():
    torch.manual_seed(0)
    block = BidirectionalMamba(64, MambaSizes.of_width(64), torch.nn)
    assert (block.sizes.inner, block.sizes.state, block.sizes.conv, block.sizes.rank) == (128, 16, 4, 4)
    assert MambaSizes.of_width(40).rank == 3
    for suffix in ("", "_b"):
        steps = np.logaddexp(0, block.get_parameter(f"dt_proj{suffix}.bias").detach().double().numpy())
        assert 1e-3 * 0.999 < steps.min() < 2e-3
        assert 5e-2 < steps.max() < 1e-1 * 1.001
        assert 0.5 * 4**-0.5 < block.get_parameter(f"dt_proj{suffix}.weight").abs().max() <= 4**-0.5
        decay = torch.exp(block.get_parameter(f"A{suffix}_log"))
        torch.testing.assert_close(decay, torch.arange(1.0, 17).expand(128, 16))
        assert (block.get_parameter(f"D{suffix}") == 1).all()


@torch.no_grad()
def test_a_checkpoint_may_mix_both_kinds_in_other_sizes(tmp_path):
    kinds = {
        "input_blocks.0.1": MambaSizes(inner=96, state=8, conv=3, rank=5),
        "output_blocks.3.2": MambaSizes(inner=64, state=16, conv=4, rank=2),
    }
    weights = mamba_weights(kinds=kinds)
    assert check_keys(weights).mamba == kinds
    sizes = "state 8, convolution over 3 frames or state 16, convolution over 4 frames"
    assert describe_temporal(check_keys(weights)).startswith(
        f"Mamba in 2 of 5 (input_blocks.0.1, output_blocks.3.2); {sizes}; selective scan: "
    )
    save_file(weights, tmp_path / "mixed.safetensors")
    unet = load_unet(tmp_path / "mixed.safetensors")
    assert {name for name, module in unet.named_modules() if isinstance(module, TemporalMamba)} == kinds.keys()
    v = unet(synth("x", (1, 4, 5, 6, 4)), torch.tensor([500]))
    assert torch.isfinite(v).all()
    with pytest.raises(InputError, match=r"1 missing \(output_blocks.3.2.mamba.dt_proj_b.bias\)"):
        check_keys({name: t for name, t in weights.items() if name != "output_blocks.3.2.mamba.dt_proj_b.bias"})
    with pytest.raises(InputError, match=r"input_blocks.0.1.mamba.D_b \(3,\) instead of \(96,\)"):
        check_keys(weights | {"input_blocks.0.1.mamba.D_b": torch.zeros(3)})


def test_another_kind_of_mamba_is_named():
    weights, layer = mamba_weights(), "input_blocks.0.1.mamba"
    for name, tensor in {
        "A_log": torch.zeros(8),
        "conv1d.weight": torch.tensor(1.0),
        "dt_proj.weight": torch.zeros(3),
    }.items():
        with pytest.raises(InputError, match=rf"{layer}.{name} has shape .*expected channels x "):
            check_keys(weights | {f"{layer}.{name}": tensor})


@torch.no_grad()
def test_bare_tensors_stay_wide_in_float8_and_float8_is_read(tmp_path):
    torch.manual_seed(0)
    block = BidirectionalMamba(16, MambaSizes.of_width(16), torch.nn)
    save_file({f"x.{name}": tensor for name, tensor in block.state_dict().items()}, tmp_path / "block.safetensors")
    tensors, _ = read_tensors(tmp_path / "block.safetensors", torch.float8_e4m3fn)
    wide = {name for name, tensor in tensors.items() if tensor.dtype == torch.float16}
    assert wide == {f"x.{name}" for name in BARE}
    assert {tensor.dtype for name, tensor in tensors.items() if name not in wide} == {torch.float8_e4m3fn}

    class Operations:  # a host's, whose weights come later
        pass

    for name in ("Linear", "Conv1d"):
        setattr(Operations, name, type(name, (getattr(torch.nn, name),), {"reset_parameters": lambda self: None}))
    host_block = BidirectionalMamba(16, MambaSizes.of_width(16), Operations, dtype=torch.float8_e4m3fn)
    assert {name for name, tensor in host_block.state_dict().items() if tensor.dtype == torch.float16} == {*BARE}
    x = torch.randn(3, 5, 16)
    for name in BARE:  # a file may hold them so
        setattr(block, name, torch.nn.Parameter(getattr(block, name).to(torch.float8_e4m3fn), requires_grad=False))
    y = block(x)
    for name in BARE:
        setattr(block, name, torch.nn.Parameter(getattr(block, name).float()))
    torch.testing.assert_close(y, block(x))


@torch.no_grad()
def test_a_block_is_pickled_and_gives_the_scan_contiguous_inputs(monkeypatch):
    torch.manual_seed(0)
    block, x = BidirectionalMamba(16, MambaSizes.of_width(16), torch.nn), torch.randn(3, 5, 16)
    y, given = block(x), []
    torch.testing.assert_close(pickle.loads(pickle.dumps(block))(x), y)
    monkeypatch.setattr("unianimate_core.ssm.block.selective_scan", lambda *inputs: given.extend(inputs) or inputs[0].u)
    block(x)
    assert all(tensor.is_contiguous() for branch in given[:2] for tensor in (branch.u, branch.delta))


@torch.no_grad()
def test_precisions_and_groups_of_pixels():
    config = dataclasses.replace(CONFIG, width=64)  # norms of one channel would magnify every error
    weights, latent = mamba_weights(config), synth("x", (2, 4, 5, 6, 4))
    timestep = torch.tensor([500, 20])
    expected = load_unet(weights, dtype=torch.float64)(latent, timestep)
    for dtype, tolerance in {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-1}.items():
        unet = load_unet(weights, dtype=dtype)
        whole = unet(latent, timestep)
        assert relative_error(whole, expected) < tolerance
        unet.working_bytes = 10_000
        assert relative_error(unet(latent, timestep), expected) < tolerance


@torch.no_grad()
def test_work_is_linear_in_frames():
    """The work of a Mamba layer, whose scan test_ssm_scan.py counts; a transformer's is not."""
    flops = {}
    for kind in ("mamba", "transformer"):
        config = with_temporal(CONFIG, CONFIG, kind)
        unet = UNet(config, device="meta")
        for frames in (8, 16, 32):
            with FlopCounterMode(display=False) as counter:
                unet.input_blocks[0][1](torch.empty(frames, 32, 6, 4, device="meta"), frames)
            flops[kind, frames] = counter.get_total_flops()
    growth = {
        kind: flops[kind, 32] - flops[kind, 16] - 2 * (flops[kind, 16] - flops[kind, 8])
        for kind in ("mamba", "transformer")
    }
    assert growth["mamba"] == 0
    assert growth["transformer"] > 0


def test_weights_that_a_host_casts_and_streams():
    """A host's layers hold their weights in another precision and cast them as they are used; bare parameters stay."""

    class Operations:
        pass

    for name in ("Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm"):

        class Layer(getattr(torch.nn, name)):
            def forward(self, x):
                stored = {key: parameter.data for key, parameter in self._parameters.items() if parameter is not None}
                for key, value in stored.items():
                    self._parameters[key].data = value.to(x.dtype)
                out = super().forward(x)
                for key, value in stored.items():
                    self._parameters[key].data = value
                return out

        setattr(Operations, name, Layer)
    weights = mamba_weights()
    config = check_keys(weights)
    unet = UNet(config, Operations, dtype=torch.float16)
    unet.load_state_dict(weights)
    x, context = synth("x", (1, 12, 3, 6, 4)), synth("c", (1, 7, 16))
    exact_unet = UNet(config)
    exact_unet.load_state_dict({name: tensor.half().float() for name, tensor in weights.items()})
    with torch.no_grad():
        v, expected = (network.unified(x, torch.tensor([3]), context) for network in (unet, exact_unet))
    assert v.dtype == torch.float32
    assert relative_error(v, expected) < 1e-5


def test_the_compiler_sees_one_graph():
    torch.manual_seed(0)
    block = BidirectionalMamba(16, MambaSizes.of_width(16), torch.nn)
    x = torch.randn(3, 5, 16)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    gradients = []
    for run in (block, compiled):
        block.zero_grad()
        y = run(x)
        y.square().sum().backward()
        gradients.append([y.detach(), *(parameter.grad.clone() for parameter in block.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_inspect_names_the_layers_and_what_scans(tmp_path):
    kinds = {"middle_block.2": MambaSizes(inner=128, state=16, conv=4, rank=4)}
    save_file(mamba_weights(kinds=kinds), tmp_path / "mixed.safetensors")
    command = [sys.executable, "-m", "unianimate_core.cli", "inspect", str(tmp_path / "mixed.safetensors")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "a UniAnimate model with temporal Mamba" in out
    assert "Mamba in 1 of 5 (middle_block.2); state 16, convolution over 4 frames; selective scan: torch on cpu" in out


def test_importing_loads_no_optional_package():
    code = "import sys, unianimate_core.ssm.scan; print({'triton', 'mamba_ssm', 'torch._dynamo'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.strip() == "set()"


def test_mamba_layers_begin_as_the_identity_in_a_transformers_network():
    torch.manual_seed(1)
    base, _ = new_unet(CONFIG, 1)
    tensors = {name: torch.randn_like(tensor) * 0.1 for name, tensor in base.state_dict().items()}
    unet, new = new_unet(with_temporal(CONFIG, CONFIG, "mamba"), 2, tensors)
    x = torch.randn(6, 32, 5, 4)
    torch.testing.assert_close(unet.input_blocks[0][1](x, 3), x, rtol=0, atol=0)
    kept = {name for name in unet.state_dict() if name not in new}
    assert kept == {name for name in tensors if name in unet.state_dict() and not name.endswith(TEMPORAL_OUT)}
    assert "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight" in kept
    assert "input_blocks.1.2.proj_in.weight" in kept


TEMPORAL_OUT = tuple(
    f"{layer}.proj_out.{part}" for layer in with_temporal(CONFIG, CONFIG, "mamba").mamba for part in ("weight", "bias")
)


def test_the_kind_of_temporal_layers_in_a_training_configuration(tmp_path):
    none = dict.fromkeys((f"model.{name}" for name in vars(config_of(tmp_path).model)), None)
    torch.save(mamba_weights(kinds={"middle_block.2": MambaSizes(96, 8, 3, 5)}), tmp_path / "mixed.pth")

    def built(**changes):
        return build_unet(config_of(tmp_path, **none | {"model.checkpoint": "mixed.pth"} | changes))

    unet, new = built()
    assert new == []
    assert unet.config.mamba.keys() == {"middle_block.2"}
    unet, new = built(**{"model.temporal": "mamba"})
    assert len(unet.config.mamba) == 5
    assert unet.config.mamba["middle_block.2"] == MambaSizes(96, 8, 3, 5)
    assert not any(name.startswith("middle_block") for name in new)
    assert {name.partition(".mamba")[0] for name in new if ".mamba" in name} == unet.config.mamba.keys() - {
        "middle_block.2"
    }
    unet, new = built(**{"model.temporal": "transformer"})
    assert unet.config.mamba == {}
    assert "middle_block.2.transformer_blocks.0.attn1.to_q.weight" in new
    unet, _ = built(**{"model.multipliers": [1, 3]})  # the middle block is wider now: usual sizes
    assert unet.config.mamba == {"middle_block.2": MambaSizes.of_width(96)}
    unet, _ = build_unet(config_of(tmp_path, **{"model.temporal": "mamba"}))
    assert len(unet.config.mamba) == 5


def test_the_small_models_twin_takes_all_but_the_temporal_layers_from_it():
    unet, new = build_unet(read_config(ROOT / "configs" / "small_mamba.toml"))
    assert set(with_temporal(unet.config, unet.config, "mamba").mamba) == set(unet.config.mamba)
    temporal = tuple(f"{name}.{part}" for name in unet.config.mamba for part in ("mamba.", "proj_out."))
    assert all(name.startswith(temporal) for name in new)
    kept = {name: tensor for name, tensor in load_file(SMALL_UNET).items() if name in unet.state_dict()}
    assert all(torch.equal(unet.state_dict()[name], kept[name].float()) for name in kept.keys() - set(new))


def test_a_mamba_network_learns_and_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    make_videos(tmp_path / "videos", 1)
    changes = {"model.temporal": "mamba", "data.frames": 6, "data.stride": 1, "dropout.all_kept": 0.7}
    changes |= {"training.learning_rate": 4e-3, "training.batch": 4, "report.checkpoint": 24, "report.export": "fp32"}
    loss = curve(train(tmp_path, **changes, steps=24))
    assert np.mean(loss[-8:]) < 0.8 * np.mean(loss[:5])
    unet = load_unet(tmp_path / "run" / "unianimate.safetensors")
    assert len(unet.config.mamba) == 5
    learned = load_file(tmp_path / "run" / "checkpoints" / "step-000024" / "model.safetensors")
    decays = [tensor for name, tensor in learned.items() if name.endswith("_log")]
    assert all(
        not torch.equal(tensor, decays[0][0].expand_as(tensor)) for tensor in decays
    )  # the scan's gradients came
    x0 = sample(unet, synth("x_T", (1, 4, 6, 3, 2)), Conditions(), steps=4, guidance=1.5)
    assert torch.isfinite(x0).all()


def test_a_mamba_model_in_comfyui_samples_as_in_the_library(comfy: ComfyServer, monkeypatch):
    weights = mamba_weights(UNetConfig.from_tensors(golden_weights()))
    file = comfy.base / "models" / "diffusion_models" / "mamba.safetensors"
    save_file(weights | {"empty_prompt": TOKENS}, file)
    run = comfy.queue(exact(graph("mamba.safetensors")))
    monkeypatch.setattr("graphs.golden_weights", lambda: weights)
    assert relative_error(latents(comfy, run), in_the_library()) < 1e-3
    assert re.search(r"selective scan: torch on cpu \(mamba_ssm: .*triton: ", comfy.log()), comfy.log_tail()


def test_a_mamba_model_in_comfyui_samples_with_weights_in_float8(comfy: ComfyServer, monkeypatch):
    weights = mamba_weights(UNetConfig.from_tensors(golden_weights()))
    save_file(weights | {"empty_prompt": TOKENS}, comfy.base / "models" / "diffusion_models" / "mamba8.safetensors")
    prompt = graph("mamba8.safetensors")
    prompt["1"]["inputs"]["weight_dtype"] = "float8_e4m3fn"
    result = latents(comfy, comfy.queue(exact(prompt)))
    assert torch.isfinite(result).all()
    bare = tuple(f".{name}" for name in BARE)
    rounded = {
        name: tensor.to(torch.float16 if name.endswith(bare) else torch.float8_e4m3fn).float()
        for name, tensor in weights.items()
    }
    monkeypatch.setattr("graphs.golden_weights", lambda: rounded)
    text = TOKENS.to(torch.float8_e4m3fn).float()[None]
    assert relative_error(result, in_the_library(text=text)) < 2e-2
