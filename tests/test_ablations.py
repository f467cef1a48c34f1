"""The ablations: their networks differ in what they claim to, their measures are the formulas, all of it runs."""

import json
import math

import ablations
import numpy as np
import pytest
import torch
from ablation import budget
from ablation.comparison import paired_differences
from ablation.long_video import Scene, chain
from ablation.networks import WithReferenceNetwork, build_with_reference_network, build_without_reference_pose
from ablation.seams import by_segment, growth, seam, segment_borders, segments, window_borders
from ablation.tables import verdict
from accelerate.state import AcceleratorState, GradientState
from training_run import config_of

from unianimate_core import Conditions, InputError, load_unet
from unianimate_core.training.model import build_unet
from unianimate_core.training.puppets.dataset import Recipe, write_puppets

WIDTH, HEIGHT = 16, 24


@pytest.fixture
def config(tmp_path):
    return config_of(tmp_path)


def randomised(unet):
    """A network whose zeros are gone, so that everything has an effect."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return unet


def inputs(frames=3, batch=2):
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.rand(shape, generator=generator)

    conditions = {
        "pose": random(batch, frames, 3, HEIGHT, WIDTH),
        "reference": random(batch, 4, HEIGHT // 8, WIDTH // 8),
        "reference_pose": random(batch, 3, HEIGHT, WIDTH),
    }
    return (random(batch, 4, frames, HEIGHT // 8, WIDTH // 8), torch.tensor([5, 700])[:batch]), conditions


def test_all_of_both_networks_is_trained(config):
    unet = randomised(build_with_reference_network(config)[0])
    (latent, timestep), conditions = inputs()
    first_frame = torch.rand(2, 3, HEIGHT, WIDTH)
    unet(latent, timestep, **conditions, first_frame=first_frame).square().mean().backward()
    for name, parameter in unet.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name
    second = [name for name, p in unet.named_parameters() if p.requires_grad and name.startswith("reference_network.")]
    assert len(second) > 40
    assert not any("temopral" in name for name in second)


@pytest.mark.parametrize("changed", ["reference", "reference_pose", "second network"])
def test_the_video_depends_on_the_second_network_and_on_what_it_reads(config, changed):
    unet = randomised(build_with_reference_network(config)[0])
    step, conditions = inputs()
    with torch.no_grad():
        before = unet(*step, **conditions)
        if changed == "second network":
            unet.reference_network.input_blocks[0][0].weight.mul_(2)
        else:
            conditions[changed] = conditions[changed].flip(-1)
        after = unet(*step, **conditions)
    assert before.shape == (2, 4, 3, HEIGHT // 8, WIDTH // 8)
    assert (after - before).abs().max() > 1e-3


def test_the_second_networks_features_are_keys_and_values_of_every_frame(config):
    """Softmax attention over own and reference tokens together, computed here in float64."""
    unet = randomised(build_with_reference_network(config)[0]).double()
    (latent, timestep), conditions = inputs()
    latent, conditions = latent.double(), {name: tensor.double() for name, tensor in conditions.items()}
    unet.dtype = torch.float64
    block = unet.input_blocks[1][1].transformer_blocks[0]
    seen = {}
    block.norm1.register_forward_hook(lambda _, __, output: seen.update(x=output))
    block.attn1.register_forward_hook(lambda _, __, output: seen.update(out=output))
    with torch.no_grad():
        features = unet.encode_conditions(Conditions(**conditions), latent)
        unet.denoise(latent, timestep, features)
        x, memory = seen["x"], features.memory[0]  # (b f) l c, b n c
        heads = block.attn1.heads
        weights = [layer.weight.T for layer in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v)]
        for row in range(len(x)):
            both = torch.cat((x[row], memory[row // 3]))  # three frames a video
            q, k, v = (t @ weight for t, weight in zip((x[row], both, both), weights, strict=True))
            parts = [
                torch.softmax(q_h @ k_h.T / math.sqrt(q_h.shape[1]), dim=-1) @ v_h
                for q_h, k_h, v_h in zip(*(t.chunk(heads, dim=-1) for t in (q, k, v)), strict=True)
            ]
            expected = torch.cat(parts, -1) @ block.attn1.to_out[0].weight.T + block.attn1.to_out[0].bias
            torch.testing.assert_close(seen["out"][row], expected, rtol=1e-9, atol=1e-12)


def test_networks_begin_with_the_same_weights(config):
    plain = build_unet(config)[0].state_dict()
    for build in (build_without_reference_pose, build_with_reference_network):
        state = build(config)[0].state_dict()
        for name, tensor in plain.items():
            torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)
    second = [name for name in state if name.startswith("reference_network.")]
    assert all(torch.equal(state[name], plain[name.removeprefix("reference_network.")]) for name in second)


def test_the_reference_pose_is_unknown_without_it(config):
    unet = randomised(build_without_reference_pose(config)[0])
    plain = randomised(build_unet(config)[0])
    step, conditions = inputs()
    with torch.no_grad():
        given = unet(*step, **conditions)
        left_out = conditions.pop("reference_pose")
        torch.testing.assert_close(given, plain(*step, **conditions))
        assert (plain(*step, **conditions, reference_pose=left_out) - given).abs().max() > 1e-3


def test_a_jump_is_a_seam():
    """Each frame 2 grey levels from the one before, and 10 at the two borders: 10 / 2."""
    steps = np.full(20, 2)
    steps[0] = 0
    steps[[8, 15]] = 10
    video = np.broadcast_to(np.cumsum(steps).astype(np.uint8)[:, None, None, None], (20, 4, 6, 3))
    assert seam(video, segment_borders(20, 8)) == pytest.approx(5)
    assert seam(video, [4, 9]) == pytest.approx(2 / ((15 * 2 + 2 * 10) / 17))
    assert math.isnan(seam(np.zeros((5, 2, 2, 3), np.uint8), [2]))
    assert seam(255 - video, [8, 15]) == pytest.approx(5)  # down as well as up, no overflow


def test_segments_share_a_frame_and_windows_end():
    assert segments(20, 8) == [(0, 8), (7, 15), (14, 20)]
    assert segment_borders(20, 8) == [8, 15]
    assert segments(15, 8) == [(0, 8), (7, 15)]
    assert segments(16, 8)[-1] == (14, 16)
    # 0-7, 6-13, 12-19: frames 6, 8, 12, 14 are in other windows than the ones before them
    assert window_borders(20, 8, 2) == [6, 8, 12, 14]


def test_drift_is_a_slope():
    values = 3 + 0.25 * np.arange(40.0)
    values[7] = np.nan
    assert growth(values) == pytest.approx(25)
    assert by_segment(np.array([1.0, 3.0, np.nan, 5.0, np.nan]), [2, 4]) == [2.0, 5.0, None]
    assert growth(np.full(5, np.nan)) is None


def test_chained_segments_begin_with_the_last_frame_before():
    asked = []

    def sample(x_T, conditions):
        asked.append((x_T, conditions))
        start = float(conditions.pose[0, 0, 0, 0, 0])
        return x_T * 0 + torch.arange(x_T.shape[2]).view(1, 1, -1, 1, 1) + start

    def decode(latents):
        return latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2) / 100

    frames = 20
    pose = torch.arange(frames).view(1, frames, 1, 1, 1).expand(1, frames, 3, 8, 8).float()
    noise = torch.randn(1, 4, frames, 1, 1)
    scene = Scene(Conditions(pose=pose, reference=torch.zeros(1, 4, 1, 1)), noise, sample, decode)
    made = chain(scene, 8)
    assert [(c.pose[0, 0, 0, 0, 0], c.pose.shape[1]) for _, c in asked] == [(0, 8), (7, 8), (14, 6)]
    assert asked[0][1].first_frame is None
    torch.testing.assert_close(asked[1][1].first_frame, torch.full((1, 3, 8, 8), 0.07))
    torch.testing.assert_close(asked[2][1].first_frame, torch.full((1, 3, 8, 8), 0.14))
    torch.testing.assert_close(made[:, 0, 0, 0], torch.arange(frames) / 100)
    for (x_T, _), start in zip(asked, (0, 7, 14), strict=True):  # the same noise as a sliding window's
        ratio = x_T / noise[:, :, start : start + x_T.shape[2]]
        torch.testing.assert_close(ratio, ratio[0, 0, 0, 0, 0].expand_as(ratio))


def test_differences_are_paired():
    paper = [{"psnr_star": 20.0}, {"psnr_star": 30.0}, {"psnr_star": 25.0}, {"psnr_star": math.nan}]
    other = [{"psnr_star": 19.0}, {"psnr_star": 28.0}, {"psnr_star": 25.0}, {"psnr_star": 1.0}]
    found = paired_differences(paper, other)["psnr_star"]
    assert found == {"mean": pytest.approx(-1), "error": pytest.approx(1 / math.sqrt(3)), "clips": 3}
    assert verdict("psnr_star", found) == "not clearly different"
    assert verdict("psnr_star", {"mean": -1.0, "error": 0.4}) == "worse"
    assert verdict("identity", {"mean": -1.0, "error": 0.4}) == "better"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_puppets(folder / "train", Recipe(32, 48, frames=4, seed=1), 2)
    write_puppets(folder / "evaluation", Recipe(32, 48, frames=7, seed=2), 2, parts=True)
    return folder


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def options(data, output, *more):
    small = "--size 16x24 --frames 3 --start 2 --batch 1 --sampling-steps 2"
    long = "--long-size 32x48 --long-frames 7 --long-clips 1 --segment 4 --window 4 --overlap 1"
    folders = ["--data", str(data / "train"), "--evaluation", str(data / "evaluation"), "-o", str(output)]
    return [*folders, *small.split(), *long.split(), *more]


def test_the_whole_benchmark(data, tmp_path, monkeypatch):
    # The plots of single clips take most of the time, and are tested with the evaluation.
    monkeypatch.setattr("unianimate_core.evaluation.evaluate.plot_curves", lambda *_: np.zeros((8, 8, 3), np.uint8))
    output = tmp_path / "out"
    arguments = options(data, output, "--steps", "2")
    ablations.run(ablations.parse(arguments))
    results = json.loads((output / "ablations.json").read_text())
    assert list(results) == ["reference-pose", "reference-network", "long-video"]
    networks = results["reference-network"]["networks"]
    assert [(n["steps"], n["samples"]) for n in networks.values()] == [(2, 2), (2, 2)]
    one, two = (n["parameters"] for n in networks.values())
    assert two > 1.3 * one
    for name, network in results["reference-pose"]["networks"].items():
        key = next(key for key, value in budget.NETWORKS.items() if value.title == name)
        measured = json.loads((output / key / "evaluation" / "metrics.json").read_text())
        assert network["means"] == measured["means"]["model"]
    unified = load_unet(output / "unified" / "unianimate.safetensors")  # the nodes' and the command line's way
    assert unified.config.width == 32
    for method in results["long-video"]["methods"].values():
        assert method["seam"] > 0
        assert method["seam_of_truth"] > 0
        assert len(method["identity"]["by_segment"]) == 2
    text = (output / "ablations.md").read_text()
    for path in ("reference-pose.png", "reference-network-loss.png", "long-video.png"):
        assert f"({path})" in text
        assert (output / path).stat().st_size > 1000

    # Again: everything is kept.
    weights = output / "reference-network" / "unianimate.safetensors"
    written = weights.stat().st_mtime_ns
    monkeypatch.setattr(WithReferenceNetwork, "denoise", None)
    ablations.run(ablations.parse([*arguments, "--only", "reference-network"]))
    assert weights.stat().st_mtime_ns == written
    assert json.loads((output / "ablations.json").read_text()) == results
    with pytest.raises(InputError, match=r"run\.steps = 2, it is now 3"):
        ablations.run(ablations.parse(options(data, output, "--steps", "3")))


def test_equal_seconds(data, tmp_path, monkeypatch):
    """The steps are what fits into the seconds at the speed of a short trial."""
    monkeypatch.setattr(budget, "TIMED_STEPS", 3)
    real = budget.read_log
    monkeypatch.setattr(
        budget, "read_log", lambda path: [row | {"seconds": 0.25 * n} for n, row in enumerate(real(path), start=1)]
    )
    setup = ablations._setup(ablations.parse(options(data, tmp_path / "out", "--seconds", "1.0")))
    facts, _ = budget.train("without-reference-pose", setup)
    assert (facts["steps"], facts["samples"]) == (4, 4)
    assert not (tmp_path / "out" / "without-reference-pose" / "trial").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--only", "mamba"], "'mamba'"),
        (["--size", "16x25"], "25"),
        (["--start", "0"], "start is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--seconds", "-1"], "seconds is -1"),
        (["--sampling-steps", "0"], "steps is 0"),
        (["--guidance", "-1"], "guidance is -1"),
        (["--segment", "1"], "segments have 1"),
        (["--overlap", "4"], "overlap 4"),
        (["--long-frames", "4"], "4 frames"),
        (["--long-frames", "8"], "no usable video of 8"),
        (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--data", "nowhere"], "nowhere"),
        (["--evaluation", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(data, tmp_path, more, named):
    with pytest.raises(InputError, match=named):
        ablations.run(ablations.parse(options(data, tmp_path / "out", *more)))
    assert not (tmp_path / "out").exists()
