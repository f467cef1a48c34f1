import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unianimate_core.clip import load_clip, resize_for_clip
from unianimate_core.errors import InputError

NAME = "unianimate-test"
CONFIG = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 28, "layers": 3, "width": 64, "head_width": 32, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 4},
}


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory):
    try:
        import open_clip
    except ImportError:
        pytest.skip('open_clip is not installed (pip install "unianimate[clip]")')
    except RuntimeError as error:
        pytest.skip(f"open_clip cannot start beside this torch: {error}")
    path = tmp_path_factory.mktemp("configs") / f"{NAME}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    return open_clip


@pytest.fixture(scope="module")
def model(open_clip):
    torch.manual_seed(0)
    model = open_clip.create_model(NAME).eval()
    for name, parameter in model.named_parameters():
        if "ln_" in name or name.endswith("bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)  # fresh norms would hide a forgotten one
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "open_clip_pytorch_model.bin"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def prompt(open_clip, model):
    """The empty prompt's hidden state, tapped while open_clip encodes it."""
    tapped = []
    hook = model.transformer.resblocks[-2].register_forward_hook(lambda *args: tapped.append(args[2]))
    model.encode_text(open_clip.tokenize([""]))
    hook.remove()
    hidden = tapped[0] if tapped[0].shape[0] == 1 else tapped[0].transpose(0, 1)
    return model.ln_final(hidden)[0]


def test_all_of_this_passes_where_open_clip_runs(request):
    """open_clip needs a torchvision that fits its torch; the ComfyUI that the tests run in has one."""
    try:
        import open_clip  # noqa: F401
    except (ImportError, RuntimeError):
        host = request.getfixturevalue("comfy_host")
        root = Path(__file__).parent.parent
        command = [host.python, "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider", "tests/test_clip.py"]
        environment = os.environ | {"PYTHONPATH": str(root)}
        run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout
        assert "skipped" not in run.stdout


def test_the_resize_is_bilinear_without_crop():
    levels = np.random.default_rng(0).integers(0, 256, (300, 180, 3), dtype=np.uint8)
    resized = resize_for_clip(torch.from_numpy(levels).permute(2, 0, 1)[None] / 255)
    expected = np.asarray(Image.fromarray(levels).resize((224, 224), Image.Resampling.BILINEAR))
    assert resized.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(resized[0].permute(1, 2, 0).numpy() * 255, expected, atol=1.01)


def test_a_missing_or_broken_open_clip_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match="install the extra `clip`"):
        load_clip(tmp_path / "a.bin")
    monkeypatch.delitem(sys.modules, "open_clip")
    (tmp_path / "open_clip.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="torchvision::nms"):
        load_clip(tmp_path / "a.bin")


def test_the_embedding_is_open_clips_own_unnormalised(open_clip, model, checkpoint):
    pixels = torch.rand(3, 3, 28, 28)
    mean, std = (torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    expected = model.encode_image((pixels - mean) / std)
    embedding = load_clip(checkpoint, NAME).encode_image(pixels)
    assert embedding.shape == (3, 48)
    assert (expected.norm(dim=1) - 1).abs().min() > 0.1
    torch.testing.assert_close(embedding, expected, rtol=1e-5, atol=1e-6)


def test_pictures_of_any_size_are_squeezed(checkpoint):
    clip = load_clip(checkpoint, NAME, text=False)
    wide = torch.rand(1, 3, 40, 90)
    torch.testing.assert_close(clip.encode_image(wide), clip.encode_image(resize_for_clip(wide, 28)))


def test_the_empty_prompt_is_open_clips_own(checkpoint, prompt):
    tokens = load_clip(checkpoint, NAME).empty_prompt()
    assert tokens.shape == (77, 32)
    torch.testing.assert_close(tokens, prompt, rtol=1e-5, atol=1e-5)


def test_one_tower_alone(model, checkpoint, prompt, tmp_path):
    pixels = torch.rand(1, 3, 28, 28)
    for part, options in (("visual.", {"text": False}), ("text", {"vision": False})):
        tensors = {n: t for n, t in model.state_dict().items() if n.startswith("visual.") == (part == "visual.")}
        path = tmp_path / f"{part}.safetensors"
        save_file(tensors, path)
        clip = load_clip(path, NAME, **options)
        count = sum(parameter.numel() for parameter in clip.model.parameters())
        assert count <= sum(tensor.numel() for tensor in tensors.values())
        if part == "visual.":
            torch.testing.assert_close(clip.encode_image(pixels), load_clip(checkpoint, NAME).encode_image(pixels))
            with pytest.raises(InputError, match="text=True"):
                clip.empty_prompt()
            with pytest.raises(InputError, match=r"missing \(.*positional_embedding"):
                load_clip(path, NAME)
        else:
            torch.testing.assert_close(clip.empty_prompt(), prompt, rtol=1e-5, atol=1e-5)
            with pytest.raises(InputError, match="vision=True"):
                clip.encode_image(pixels)
            with pytest.raises(InputError, match=r"missing \(.*visual\."):
                load_clip(path, NAME)


def test_half_precision(model, prompt, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({f"module.{name}": tensor.half() for name, tensor in model.state_dict().items()}, path)
    torch.testing.assert_close(load_clip(path, NAME).empty_prompt(), prompt, rtol=1e-2, atol=1e-2)
    clip = load_clip(path, NAME, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in clip.model.parameters()} == {torch.bfloat16}
    assert clip.encode_image(torch.rand(1, 3, 28, 28)).dtype == clip.empty_prompt().dtype == torch.float32


def test_the_wrong_files_are_named(model, checkpoint, tmp_path):
    whole = model.state_dict()
    bias = "transformer.resblocks.1.mlp.c_fc.bias"
    for tensors, message in [
        ({"vision_model.encoder.layers.0.x": torch.zeros(1)}, "CLIP vision model, not an OpenCLIP"),
        ({"decoder.conv_in.weight": torch.zeros(1)}, "VAE, not an OpenCLIP"),
        ({name: tensor for name, tensor in whole.items() if name != bias}, rf"missing \({bias}"),
        (whole | {"visual.stranger": torch.zeros(1)}, r"left over \(visual\.stranger"),
        (whole | {bias: torch.zeros(1)}, rf"another shape \({bias}"),
    ]:
        save_file(tensors, tmp_path / "a.safetensors")
        with pytest.raises(InputError, match=message):
            load_clip(tmp_path / "a.safetensors", NAME)
    with pytest.raises(InputError, match="not OpenCLIP's ViT-H-14"):
        load_clip(checkpoint)
    with pytest.raises(InputError, match="no model 'nonsense'"):
        load_clip(checkpoint, "nonsense")
    with pytest.raises(InputError, match="no checkpoint"):
        load_clip(tmp_path / "missing.bin", NAME)


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 28, 28, 3), (0, 3, 28, 28)])
def test_what_is_not_pictures(checkpoint, shape):
    with pytest.raises(InputError, match="b 3 H W"):
        load_clip(checkpoint, NAME, text=False).encode_image(torch.rand(shape))
