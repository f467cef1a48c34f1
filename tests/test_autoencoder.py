import logging
import re
import sys

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file

from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.errors import InputError

LEVELS = 4


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = noise * parameter[0].numel() ** -0.5
        else:
            parameter.data = 0.1 * noise + name.endswith("norm.weight")
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def kl():
    return randomise(
        AutoencoderKL(
            block_out_channels=(32, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * LEVELS,
            up_block_types=("UpDecoderBlock2D",) * LEVELS,
        )
    )


@pytest.fixture(scope="module")
def tiny():
    return randomise(AutoencoderTiny())


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(5, 3, 32, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def latents():
    return torch.randn(5, 4, 4, 3, generator=torch.Generator().manual_seed(2))


def ldm_name(name):
    """An AutoencoderKL tensor's name in SD's own files, from its name in diffusers."""
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{LEVELS - 1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{LEVELS - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    for theirs, ours in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        name = name.replace(f"mid_block.attentions.0.{theirs}.", f"mid.attn_1.{ours}.")
    return name


def to_ldm(tensors):
    renamed = {ldm_name(name): tensor for name, tensor in tensors.items()}
    return {n: t[:, :, None, None] if ".attn_1." in n and t.ndim == 2 else t for n, t in renamed.items()}


def to_old_diffusers(tensors):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {re.sub(r"to_(q|k|v|out\.0)", lambda m: old[m[0]], name): tensor for name, tensor in tensors.items()}


def to_taesd(tensors, **extra):
    """A TAESD file's names; its decoder counts the clamp in front as layer 0."""
    renamed = {}
    for name, tensor in tensors.items():
        part, _, index, rest = name.split(".", 3)
        renamed[f"taesd_{part}.{int(index) + (part == 'decoder')}.{rest}"] = tensor
    return renamed | {name: torch.tensor(value) for name, value in extra.items()}


def save(tensors, path):
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return path


def check_kl(path, kl, pixels, latents, tolerance=1e-5):
    vae = load_autoencoder(path)
    expected = kl.encode(pixels * 2 - 1).latent_dist.mean * 0.18215
    torch.testing.assert_close(vae.encode(pixels), expected, rtol=tolerance, atol=tolerance)
    expected = (kl.decode(latents / 0.18215).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(vae.decode(latents), expected, rtol=tolerance, atol=tolerance)


def check_tiny(path, tiny, pixels, latents, gain, offset):
    vae = load_autoencoder(path)
    expected = tiny.encode(pixels * 2 - 1).latents * gain + offset
    torch.testing.assert_close(vae.encode(pixels), expected, rtol=1e-5, atol=1e-5)
    expected = (tiny.decode((latents - offset) / gain).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(vae.decode(latents), expected, rtol=1e-5, atol=1e-5)


def test_the_names_below_are_those_of_sds_files(kl):
    tensors = to_ldm(kl.state_dict())
    for name in (
        "encoder.down.0.downsample.conv.weight",
        "encoder.down.2.block.0.nin_shortcut.weight",
        "encoder.mid.attn_1.proj_out.bias",
        "encoder.norm_out.weight",
        "decoder.up.3.upsample.conv.weight",
        "decoder.up.1.block.0.nin_shortcut.weight",
        "decoder.mid.block_2.conv2.weight",
        "post_quant_conv.bias",
    ):
        assert name in tensors
    assert tensors["decoder.mid.attn_1.q.weight"].shape == (64, 64, 1, 1)


def test_sds_vae_in_every_layout(tmp_path, kl, pixels, latents):
    tensors = kl.state_dict()
    ldm = to_ldm(tensors)
    layouts = {
        "ldm": ldm,
        "training": ldm | {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.zeros(())},
        "checkpoint": {f"first_stage_model.{name}": tensor for name, tensor in ldm.items()}
        | {"model.diffusion_model.out.2.weight": torch.zeros(4, 8, 3, 3), "alphas_cumprod": torch.zeros(1000)},
        "diffusers": tensors,
        "old diffusers": to_old_diffusers(tensors),
    }
    assert "decoder.mid_block.attentions.0.query.weight" in layouts["old diffusers"]
    for name, layout in layouts.items():
        check_kl(save(layout, tmp_path / f"{name}.safetensors"), kl, pixels, latents)
    torch.save({"state_dict": ldm}, tmp_path / "ldm.ckpt")
    check_kl(tmp_path / "ldm.ckpt", kl, pixels, latents)


def test_half_precision_files_and_computing(tmp_path, kl, pixels, latents):
    halves = {name: tensor.half() for name, tensor in to_ldm(kl.state_dict()).items()}
    path = save(halves, tmp_path / "a.safetensors")
    check_kl(path, kl, pixels, latents, tolerance=2e-2)
    vae = load_autoencoder(path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in vae.model.parameters()} == {torch.bfloat16}
    assert vae.encode(pixels).dtype == vae.decode(latents).dtype == torch.float32


def test_taesd_for_sd(tmp_path, tiny, pixels, latents):
    tensors = to_taesd(tiny.state_dict(), vae_scale=0.18215, vae_shift=0.0)
    assert {"taesd_encoder.0.weight", "taesd_decoder.1.weight", "taesd_encoder.14.bias"} <= tensors.keys()
    check_tiny(save(tensors, tmp_path / "a.safetensors"), tiny, pixels, latents, 1.0, 0.0)


def test_taesds_scale_and_shift_as_comfyui_takes_them(tmp_path, tiny, pixels, latents, caplog):
    """ComfyUI: raw = network / vae_scale + vae_shift; the SD 1.5 latent format multiplies by 0.18215."""
    path = save(to_taesd(tiny.state_dict(), vae_scale=0.5, vae_shift=0.3), tmp_path / "a.safetensors")
    check_tiny(path, tiny, pixels, latents, 0.18215 / 0.5, 0.18215 * 0.3)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        check_tiny(save(to_taesd(tiny.state_dict()), tmp_path / "b.safetensors"), tiny, pixels, latents, 0.18215, 0.0)
    assert "vae_scale" in caplog.text


def test_diffusers_tiny(tmp_path, tiny, pixels, latents):
    check_tiny(save(tiny.state_dict(), tmp_path / "a.safetensors"), tiny, pixels, latents, 1.0, 0.0)


@pytest.fixture
def vae(tmp_path, tiny):
    return load_autoencoder(save(tiny.state_dict(), tmp_path / "vae.safetensors"))


def test_small_groups_give_the_same_and_report(vae, pixels, latents):
    sizes = []
    for part in (vae.model.encoder, vae.model.decoder):
        part.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    reports = []

    def report(done, total):
        reports.append((done, total))

    for run, given in ((vae.encode, pixels), (vae.decode, latents)):
        reports.clear()
        whole = run(given, group=5, progress=report)
        assert reports == [(5, 5)]
        reports.clear()
        torch.testing.assert_close(run(given, group=2, progress=report), whole)
        assert reports == [(2, 5), (4, 5), (5, 5)]
        assert sizes == [5, 2, 2, 1]
        sizes.clear()
        torch.testing.assert_close(run(given), whole)
        assert sizes == [1] * 5
        sizes.clear()
    torch.testing.assert_close(torch.cat(list(vae.decode_groups(latents, group=3))), whole)


def test_nothing_is_kept_for_gradients_and_pixels_stay_in_range(vae, pixels, latents):
    assert not vae.encode(pixels.clone().requires_grad_()).requires_grad
    decoded = vae.decode(latents.clone().requires_grad_() * 50)
    assert not decoded.requires_grad
    assert (decoded.min(), decoded.max()) == (0, 1)


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (3, 32, 32), (1, 3, 30, 32), (1, 3, 32, 36), (0, 3, 32, 32)])
def test_pixels_that_cannot_be_encoded(vae, shape):
    with pytest.raises(InputError, match=str(shape[-1])):
        vae.encode(torch.rand(shape))


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (4, 4, 4), (1, 4, 2, 4, 4), (0, 4, 4, 4)])
def test_latents_that_cannot_be_decoded(vae, shape):
    with pytest.raises(InputError, match="b 4 h w"):
        vae.decode(torch.rand(shape))


@pytest.mark.parametrize("layout", ["ldm", "diffusers", "taesd", "tiny"])
def test_a_missing_a_strange_and_a_resized_tensor(tmp_path, kl, tiny, layout):
    whole = {
        "ldm": lambda: to_ldm(kl.state_dict()),
        "diffusers": kl.state_dict,
        "taesd": lambda: to_taesd(tiny.state_dict(), vae_scale=1.0),
        "tiny": tiny.state_dict,
    }[layout]()
    name, message = {
        "ldm": ("decoder.up.1.block.0.conv1.weight", "decoder.up_blocks.2.resnets.0.conv1.weight"),
        "diffusers": ("decoder.up_blocks.1.resnets.0.conv1.weight",) * 2,
        "taesd": ("taesd_decoder.4.conv.0.weight", "decoder.layers.3.conv.0.weight"),
        "tiny": ("decoder.layers.3.conv.0.weight",) * 2,
    }[layout]
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match=rf"missing \(.*{message}"):
        load_autoencoder(save({n: t for n, t in whole.items() if n != name}, path))
    with pytest.raises(InputError, match=rf"another shape \(.*{message}"):
        load_autoencoder(save(whole | {name: torch.zeros(2, 2, 3, 3)}, path))
    for strange in ("stranger.weight", "decoder.stranger.weight"):
        with pytest.raises(InputError, match=r"stranger|SD's has"):
            load_autoencoder(save(whole | {strange: torch.zeros(2)}, path))


def test_other_models_are_named(tmp_path, kl, tiny):
    ldm = to_ldm(kl.state_dict())
    prefixed = {f"first_stage_model.{name}": tensor for name, tensor in ldm.items()}
    wide = AutoencoderKL(
        block_out_channels=(32,) * LEVELS,
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        latent_channels=16,
    )
    shallow = AutoencoderKL(block_out_channels=(32,))
    for tensors, message in [
        ({"dwpose_embedding.0.weight": torch.zeros(2), "x.A_log": torch.zeros(2)}, "UniAnimate"),
        ({"visual.conv1.weight": torch.zeros(2)}, "OpenCLIP"),
        ({n: t for n, t in ldm.items() if n.startswith("decoder")}, "not an autoencoder"),
        ({n: t for n, t in to_taesd(tiny.state_dict()).items() if n.startswith("taesd_decoder")}, r"missing \(encoder"),
        (prefixed | {"conditioner.embedders.0.x": torch.zeros(2)}, "SDXL"),
        (wide.state_dict(), "16 latent channels"),
        (AutoencoderTiny(latent_channels=16).state_dict(), "another shape"),
        (shallow.state_dict(), "1 levels"),
    ]:
        with pytest.raises(InputError, match=message):
            load_autoencoder(save(tensors, tmp_path / "a.safetensors"))
    with pytest.raises(InputError, match="no checkpoint"):
        load_autoencoder(tmp_path / "missing.safetensors")


def test_a_missing_package_says_what_to_install(tmp_path, kl, monkeypatch):
    path = save(to_ldm(kl.state_dict()), tmp_path / "a.safetensors")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "diffusers.loaders.single_file_utils", None)
        with pytest.raises(InputError, match="diffusers cannot be imported"):
            load_autoencoder(path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match="install the extra `standalone`"):
        load_autoencoder(path)
