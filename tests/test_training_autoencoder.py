"""The small autoencoder: TAESD's layout, whatever its width, and a training that lowers the error."""

import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from typer.testing import CliRunner

from unianimate_core import InputError
from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.checkpoint import save_tensors
from unianimate_core.cli import app
from unianimate_core.training.autoencoder import AutoencoderSettings, taesd_layout, train_autoencoder
from unianimate_core.training.puppets.dataset import Recipe, write_puppets
from unianimate_core.video.reading import read_video


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    write_puppets(folder, Recipe(frames=2, width=64, height=64), 3)
    return folder


def narrow(width, seed=0):
    torch.manual_seed(seed)
    return AutoencoderTiny(encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4).eval()


def diffusers_names(tensors):
    """TAESD's names in diffusers', whose decoder does not count the clamp."""
    named = {}
    for name, tensor in tensors.items():
        part, index, rest = name.removeprefix("taesd_").split(".", 2)
        named[f"{part}.layers.{int(index) - (part == 'decoder')}.{rest}"] = tensor
    return named


@torch.no_grad()
def test_a_narrow_one_is_the_same_network_at_full_width(tmp_path):
    """As ComfyUI runs it, 64 wide, and as we load it, without the silent channels."""
    model, pixels = narrow(8), torch.rand(2, 3, 32, 24)
    tensors = taesd_layout(model)
    save_tensors(tensors, tmp_path / "tiny.safetensors")
    wide = AutoencoderTiny().eval()
    wide.load_state_dict(diffusers_names({name: t for name, t in tensors.items() if not name.startswith("vae_")}))
    latents = model.encode(pixels * 2 - 1).latents
    torch.testing.assert_close(wide.encode(pixels * 2 - 1).latents, latents)
    torch.testing.assert_close(wide.decode(latents).sample, model.decode(latents).sample)
    loaded = load_autoencoder(tmp_path / "tiny.safetensors")
    assert loaded.model.encoder.layers[0].out_channels == 8
    torch.testing.assert_close(loaded.encode(pixels), latents)
    torch.testing.assert_close(loaded.decode(latents), (model.decode(latents).sample / 2 + 0.5).clamp(0, 1))


def test_it_begins_with_block_means_and_learns(people):
    videos = sorted(people.glob("*.mkv"))
    frames = np.concatenate([read_video(video)[0] for video in videos]) / 255  # n H W 3
    means = frames.reshape(-1, 8, 8, 8, 8, 3).mean((2, 4), keepdims=True)
    block_error = ((frames.reshape(-1, 8, 8, 8, 8, 3) - means) ** 2).mean()
    errors = []
    settings = AutoencoderSettings(steps=60, batch=4, width=8, learning_rate=2e-3)
    for _ in train_autoencoder(videos, settings, report=lambda step, error, rate: errors.append(error)):
        pass
    assert 0.5 < errors[0] / block_error < 2
    assert np.mean(errors[-10:]) < 0.9 * np.mean(errors[:10])


def test_going_on_wider_begins_where_it_was(people, tmp_path):
    settings = AutoencoderSettings(steps=1, batch=2, width=6, learning_rate=1e-12)
    videos = sorted(people.glob("*.mkv"))
    (first,) = train_autoencoder(videos, settings)
    save_tensors(first, tmp_path / "six.safetensors")
    wider = AutoencoderSettings(steps=1, batch=2, width=10, learning_rate=1e-12, decoder_only=True)
    (second,) = train_autoencoder(videos, wider, tmp_path / "six.safetensors")
    save_tensors(second, tmp_path / "ten.safetensors")
    six, ten = (load_autoencoder(tmp_path / f"{name}.safetensors") for name in ("six", "ten"))
    assert ten.model.encoder.layers[0].out_channels == 10
    pixels = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(ten.encode(pixels), six.encode(pixels), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ten.decode(six.encode(pixels)), six.decode(six.encode(pixels)), atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="raise the width"):
        next(train_autoencoder(videos, settings, tmp_path / "ten.safetensors"))


def test_the_decoder_alone(people, tmp_path):
    videos = sorted(people.glob("*.mkv"))
    (first,) = train_autoencoder(videos, AutoencoderSettings(steps=1, batch=2, width=6))
    save_tensors(first, tmp_path / "six.safetensors")
    settings = AutoencoderSettings(steps=3, batch=2, width=6, decoder_only=True)
    (second,) = train_autoencoder(videos, settings, tmp_path / "six.safetensors")
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"taesd_decoder"}


def test_a_damaged_video_is_named_and_left_out(people, tmp_path, caplog):
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(b"no video")
    videos = [damaged, *sorted(people.glob("*.mkv"))]
    list(train_autoencoder(videos, AutoencoderSettings(steps=12, batch=2, width=4)))
    assert [str(damaged) in record.message for record in caplog.records] == [True]


def test_other_latents_cannot_be_gone_on_with(people, tmp_path):
    tensors = taesd_layout(narrow(4))
    settings = AutoencoderSettings(steps=1, width=4)
    save_tensors(tensors | {"vae_scale": torch.tensor(1.0)}, tmp_path / "scaled.safetensors")
    with pytest.raises(InputError, match=r"scaled by 0\.18215"):
        next(train_autoencoder(sorted(people.glob("*.mkv")), settings, tmp_path / "scaled.safetensors"))


def test_silent_channels_among_four(tmp_path):
    """A width of 4 is also the number of latent channels: those are never cut."""
    model = narrow(4)
    for name, tensor in model.state_dict().items():
        if name not in ("encoder.layers.14.weight", "encoder.layers.14.bias") and tensor.shape[0] == 4:
            tensor[3] = 0
    save_tensors(taesd_layout(model), tmp_path / "tiny.safetensors")
    pixels = torch.rand(1, 3, 16, 16)
    loaded = load_autoencoder(tmp_path / "tiny.safetensors")
    assert loaded.model.encoder.layers[0].out_channels == 3
    torch.testing.assert_close(loaded.encode(pixels), model.encode(pixels * 2 - 1).latents.detach())


def test_the_command(people, tmp_path):
    target = tmp_path / "vae.safetensors"
    options = ["-o", str(target), "--steps", "2", "--batch", "4", "--width", "4", "--device", "cpu"]
    result = CliRunner().invoke(app, ["train-autoencoder", str(people), *options])
    assert result.exit_code == 0, result.output
    latents = load_autoencoder(target).encode(torch.rand(1, 3, 64, 64))
    assert torch.isfinite(latents).all()
    again = CliRunner().invoke(app, ["train-autoencoder", str(people), *options])
    assert isinstance(again.exception, InputError)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"crop": 60}, "crop is 60"),
        ({"crop": 128}, "none of the videos"),
        ({"width": 65}, "width is 65"),
        ({"learning_rate": math.inf}, "learning rate"),
    ],
)
def test_bad_settings_are_refused(people, settings, named):
    with pytest.raises(InputError, match=named):
        list(
            train_autoencoder(sorted(people.glob("*.mkv")), AutoencoderSettings(**{"steps": 3, "width": 4} | settings))
        )
