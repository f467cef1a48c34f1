"""The network in training: its start, per-video conditions, gradient checkpointing, loss, averages."""

import math

import numpy as np
import pytest
import torch
from training_run import config_of, on_one_core  # noqa: F401

from unianimate_core import InputError, UNet, UNetConfig
from unianimate_core.training.config import TrainingConfig
from unianimate_core.training.model import build_unet, learning_rate, v_loss
from unianimate_core.unet.blocks import ResidualBlock, SpatialTransformer, TemporalConvs, TemporalTransformer
from unianimate_core.unet.loading import new_unet

CONFIG = UNetConfig(
    width=32,
    multipliers=(1, 2),
    residual_blocks=1,
    attention_levels=(True, False),
    first_temporal_width=32,
    context_width=16,
    image_width=12,
    embedding_width=8,
    prompt_tokens=3,
)
NAMES = ("image", "pose", "reference", "reference_pose", "first_frame")
BATCH, FRAMES, H, W = 3, 4, 3, 5


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(CONFIG, dtype=torch.float64)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    conditions = {
        "image": random(BATCH, 12),
        "pose": random(BATCH, FRAMES, 3, 8 * H, 8 * W),
        "reference": random(BATCH, 4, H, W),
        "reference_pose": random(BATCH, 3, 8 * H, 8 * W),
        "first_frame": random(BATCH, 3, 8 * H, 8 * W),
    }
    return random(BATCH, 4, FRAMES, H, W), torch.tensor([5, 500, 999]), conditions


@pytest.mark.parametrize("absent", [*NAMES, "all", "mixed"])
def test_a_video_without_a_condition_is_as_if_it_were_alone_without_it(unet, inputs, absent):
    latent, timestep, conditions = inputs
    if absent == "mixed":
        rows = np.random.default_rng(0).random((len(NAMES), BATCH)) < 0.5
    else:
        rows = np.array([[name not in (absent,) and absent != "all", True, True] for name in NAMES])
    present = {name: torch.tensor(row) for name, row in zip(NAMES, rows, strict=True)}
    with torch.no_grad():
        together = unet(latent, timestep, **conditions, present=present)
        for video in range(BATCH):
            part = slice(video, video + 1)
            own = {name: tensor[part] for name, tensor in conditions.items() if present[name][video]}
            alone = unet(latent[part], timestep[part], **own)
            torch.testing.assert_close(together[part], alone, rtol=1e-9, atol=1e-9)


def test_what_an_absent_condition_holds_does_not_matter(unet, inputs):
    latent, timestep, conditions = inputs
    present = {name: torch.tensor([True, False, True]) for name in NAMES}
    with torch.no_grad():
        expected = unet(latent, timestep, **conditions, present=present)
        for tensor in conditions.values():
            tensor[1] = torch.inf
        torch.testing.assert_close(unet(latent, timestep, **conditions, present=present), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["poses", "text"])
def test_presence_of_what_is_no_condition_is_refused(unet, inputs, name):
    latent, timestep, conditions = inputs
    with pytest.raises(InputError, match=f"present names '{name}'.*they are image, pose, reference"):
        unet(latent, timestep, **conditions, present={name: torch.ones(BATCH, dtype=torch.bool)})


def test_pose_pictures_are_moved_and_embedded_in_groups(unet, inputs, monkeypatch):
    latent, _, conditions = inputs
    frame = unet.dwpose_embedding[0].out_channels * 64 * H * W
    monkeypatch.setattr("unianimate_core.unet.conditions.EMBEDDING_ELEMENTS", 2 * frame)
    events = []
    unet.dwpose_embedding[0].register_forward_pre_hook(lambda module, given: events.append(len(given[0])))
    move = torch.Tensor.to
    pose = conditions["pose"].float()

    def to(tensor, *args, **kwargs):
        if tensor.dtype == torch.float32:
            events.append("moved")
        return move(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", to)
    with torch.no_grad():
        unet.encode_pose(pose, latent)
    assert events == ["moved", 2] * (BATCH * FRAMES // 2)


def test_gradient_checkpointing_changes_no_gradient(unet, inputs):
    latent, timestep, conditions = inputs
    present = {name: torch.tensor([True, False, True]) for name in NAMES}
    gradients, saved = [], []
    for unet.gradient_checkpointing in (False, True):
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = unet(latent, timestep, **conditions, present=present).square().mean()
        unet.zero_grad()
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in unet.parameters()])
        saved.append(kept)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert saved[1] < saved[0] / 3


def test_a_new_network_begins_as_the_identity():
    unet, new = new_unet(CONFIG, seed=3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 32, 3, 5, generator=generator)
    time, context = torch.randn(2, 128, generator=generator), torch.randn(2, 7, 16, generator=generator)
    checked = set()
    for module in unet.modules():
        match module:
            case ResidualBlock() if isinstance(module.skip_connection, torch.nn.Identity):
                if module.in_layers[0].num_channels == 32:
                    torch.testing.assert_close(module(x, time, 2), x, rtol=0, atol=0)
            case SpatialTransformer() if module.norm.num_channels == 32:
                torch.testing.assert_close(module(x, context), x, rtol=0, atol=0)
            case TemporalTransformer() | TemporalConvs() if next(module.parameters()).shape[0] == 32:
                torch.testing.assert_close(module(x, 2), x, rtol=0, atol=0)
            case _:
                continue
        checked.add(type(module))
    assert len(checked) == 4
    assert torch.count_nonzero(unet(torch.randn(1, 4, 2, 3, 5), torch.tensor([7]))) == 0
    assert set(new) == set(unet.state_dict())
    assert unet.empty_prompt.shape == (3, 16)
    again, other = new_unet(CONFIG, seed=3)[0].state_dict(), new_unet(CONFIG, seed=4)[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in unet.state_dict().items())
    assert not torch.equal(other["empty_prompt"], again["empty_prompt"])
    assert torch.initial_seed() != 3  # the random numbers of others are left alone


def test_starts_from_a_checkpoint_whole_or_in_part(tmp_path, unet):
    tensors = unet.state_dict()
    torch.save({"state_dict": {name: tensor.half() for name, tensor in tensors.items()}}, tmp_path / "base.pth")
    sizes = dict.fromkeys((f"model.{name}" for name in vars(config_of(tmp_path).model)), None)
    whole = config_of(tmp_path, **sizes | {"model.checkpoint": "base.pth"})
    built, new = build_unet(whole)
    assert new == []
    assert built.config == CONFIG
    assert all(torch.equal(built.state_dict()[name], tensor.half().float()) for name, tensor in tensors.items())
    part = config_of(tmp_path, **sizes | {"model.checkpoint": "base.pth", "model.multipliers": [1, 3]})
    built, new = build_unet(part)
    assert built.config.multipliers == (1, 3)
    assert built.config.context_width == 16
    mine = built.state_dict()
    same = {name for name, tensor in tensors.items() if name in mine and mine[name].shape == tensor.shape}
    assert set(new) == set(mine) - same
    assert "input_blocks.3.0.in_layers.2.weight" in new
    assert "input_blocks.1.0.in_layers.2.weight" not in new
    assert all(torch.equal(mine[name], tensors[name].half().float()) for name in same)


def test_a_transformer_with_a_new_layer_begins_as_the_identity(unet):
    torch.manual_seed(5)
    tensors = {name: torch.randn_like(tensor) for name, tensor in unet.float().state_dict().items()}
    temporal = next(name for name, module in unet.named_modules() if isinstance(module, TemporalTransformer))
    spatial = next(name for name, module in unet.named_modules() if isinstance(module, SpatialTransformer))
    lacking = next(name for name in tensors if name.startswith(f"{temporal}.") and name.endswith("to_q.weight"))
    del tensors[lacking]
    built, new = new_unet(CONFIG, tensors=tensors)
    projection = {f"{temporal}.proj_out.weight", f"{temporal}.proj_out.bias"}
    assert set(new) == {lacking} | projection
    mine = built.state_dict()
    assert all(torch.count_nonzero(mine[name]) == 0 for name in projection)
    assert torch.equal(mine[f"{spatial}.proj_out.weight"], tensors[f"{spatial}.proj_out.weight"])


def test_checkpoints_that_cannot_be_started_from(tmp_path, unet):
    sizes = dict.fromkeys((f"model.{name}" for name in vars(config_of(tmp_path).model)), None)
    config = config_of(tmp_path, **sizes | {"model.checkpoint": "base.pth"})
    with pytest.raises(InputError, match="no checkpoint file at"):
        build_unet(config)
    tensors = unet.state_dict()
    torch.save({name: tensor for name, tensor in tensors.items() if name != "empty_prompt"}, tmp_path / "base.pth")
    with pytest.raises(InputError, match=r"give \[data\] clip .*convert --clip"):
        build_unet(config)
    torch.save({name: tensor for name, tensor in tensors.items() if name != "out.2.bias"}, tmp_path / "base.pth")
    with pytest.raises(InputError, match=r"1 missing \(out.2.bias\)"):
        build_unet(config)
    levels = config_of(tmp_path, **sizes | {"model.width": 32, "model.multipliers": [1, 2]})
    with pytest.raises(InputError, match="multipliers has 2 levels, attention_levels 4"):
        build_unet(levels)


def test_loss_against_the_formulas_in_float64():
    random = np.random.default_rng(0)
    x0, noise = random.normal(size=(2, 3, 4, 5, 2, 2))
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    timestep = np.array([0, 400, 999])
    a = root[timestep].reshape(3, 1, 1, 1, 1)
    s = np.sqrt(1 - a**2)
    noised = a * x0 + s * noise
    prediction = np.tanh(noised)
    expected = ((prediction - (a * noise - s * x0)) ** 2).reshape(3, -1).mean(1)
    seen = []

    def predict(x):
        seen.append(x)
        return x.tanh()

    latents, noise = (torch.from_numpy(array).float() for array in (x0, noise))
    loss = v_loss(predict, latents, noise, torch.from_numpy(root[timestep] ** 2))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(seen[0], noised, rtol=1e-5, atol=1e-6)
    # a perfect prediction: at the last timestep, where nothing of the video is left, v = -x0
    assert v_loss(lambda x: -latents[2:], latents[2:], noise[2:], torch.zeros(1)).item() == 0


def test_learning_rate():
    config = TrainingConfig(learning_rate=0.1, warmup=4, schedule="cosine")
    rates = [learning_rate(config, step, 104) for step in range(104)]
    np.testing.assert_allclose(rates[:5], [0.02, 0.04, 0.06, 0.08, 0.1])
    np.testing.assert_allclose(rates[29], 0.05 * (1 + math.cos(math.pi / 4)))
    assert 0 < rates[-1] < 1e-4
    linear = TrainingConfig(learning_rate=0.1, schedule="linear")
    np.testing.assert_allclose([learning_rate(linear, step, 4) for step in range(4)], [0.1, 0.075, 0.05, 0.025])
    constant = TrainingConfig(learning_rate=0.1)
    assert {learning_rate(constant, step, 4) for step in range(4)} == {0.1}
