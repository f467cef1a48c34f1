"""DDIM, guidance, noise prior and windows against the public implementation's golden data and the paper's formulas."""

import math

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file
from synthetic import GOLDEN, golden_weights, relative_error, synth

from unianimate_core import Conditions, InputError, load_unet, noise_prior, offset_noise, sample
from unianimate_core.diffusion import Schedule, frame_weights, window_starts


@pytest.fixture(scope="module")
def unet():
    return load_unet(golden_weights())


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "sampling_small.safetensors")


@pytest.fixture(scope="module")
def conditions() -> Conditions:
    pose = rearrange(synth("dwpose", (1, 3, 21, 96, 64)).sigmoid(), "b c f h w -> b f c h w")
    return Conditions(
        text=synth("zero_y", (1, 77, 1024)),
        image=synth("image", (1, 1, 1024))[:, 0],
        pose=pose[:, 1:],
        reference=synth("randomref", (1, 4, 1, 12, 8))[:, :, 0],
        reference_pose=pose[:, 0],
    )


def with_first_frame(conditions: Conditions) -> Conditions:
    first_frame = synth("local_image", (1, 3, 1, 96, 64)).sigmoid()[:, :, 0]
    return Conditions(**{**vars(conditions), "first_frame": first_frame})


def test_schedule_equals_the_public_implementation(golden):
    alphas = Schedule().alphas_cumprod
    assert alphas.dtype == torch.float64
    assert torch.allclose(alphas, golden["alphas_cumprod"], rtol=0, atol=1e-12)
    assert alphas[-1] == 0


def test_noise_prior_equals_the_public_implementation(golden, conditions):
    prior = noise_prior(conditions.reference, synth("noise", (1, 4, 20, 12, 8)), 939)
    assert relative_error(prior + 0.1 * synth("offset_noise", (1, 4, 20, 1, 1)), golden["xT"]) < 1e-6


@pytest.mark.parametrize("case", ["short", "first_frame", "windowed"])
def test_sampling_equals_the_public_implementation(unet, golden, conditions, case):
    present = with_first_frame(conditions) if case == "first_frame" else conditions
    options = {"window": 8, "overlap": 2} if case == "windowed" else {}
    x0 = sample(unet, golden["xT"], present, steps=10, guidance=2.5, **options)
    assert relative_error(x0, golden[case]) < 1e-5


def test_timesteps():
    schedule = Schedule()
    assert schedule.ddim_timesteps(50) == list(range(981, 0, -20))
    assert schedule.ddim_timesteps(30) == list(range(991, 0, -33))
    assert len(schedule.ddim_timesteps(30)) == 31
    assert schedule.ddim_timesteps(1) == [1]
    assert max(schedule.ddim_timesteps(1000)) == 999
    for steps in (0, -1, 1001):
        with pytest.raises(InputError, match=f"steps is {steps}"):
            schedule.ddim_timesteps(steps)


def test_window_starts():
    assert window_starts(27, 10, 3) == [0, 7, 14, 17]
    assert window_starts(20, 8, 2) == [0, 6, 12]
    assert window_starts(8, 8, 2) == [0]
    assert window_starts(3, 8, 2) == [0]
    for size, overlap in ((0, 0), (4, 4), (4, -1)):
        with pytest.raises(InputError, match=f"window {size} with overlap {overlap}"):
            window_starts(20, size, overlap)


@pytest.mark.parametrize("at_once", [2, 3, 9])
def test_several_windows_in_one_pass_equal_one_after_the_other(unet, golden, conditions, at_once, monkeypatch):
    """Three windows and two videos, so that windows and videos share the batch; with all conditions."""
    present = with_first_frame(conditions)
    both = Conditions(**{name: torch.cat((t, t.flip(-1))) for name, t in vars(present).items()})
    x_T = torch.cat((golden["xT"], golden["xT"].flip(-1)))[..., :6, :4]
    small = {"pose": both.pose[..., :48, :32], "first_frame": both.first_frame[..., :48, :32]}
    small |= {"reference": both.reference[..., :6, :4], "reference_pose": both.reference_pose[..., :48, :32]}
    both = Conditions(**(vars(both) | small))
    options = {"steps": 2, "window": 8, "overlap": 2, "window_weights": "pyramid"}
    one = sample(unet, x_T, both, windows_at_once=1, **options)
    counter = Counter(monkeypatch, unet, "denoise")
    together = sample(unet, x_T, both, windows_at_once=at_once, **options)
    assert counter.calls["denoise"] == 2 * math.ceil(3 / at_once) * len(Schedule().ddim_timesteps(2))
    assert relative_error(together, one) < 1e-5


def test_window_weights_by_the_definition():
    assert frame_weights(4).tolist() == [1, 1, 1, 1]
    assert frame_weights(4, "pyramid").tolist() == [1, 2, 2, 1]
    assert frame_weights(5, "pyramid").tolist() == [1, 2, 3, 2, 1]
    assert frame_weights(1, "pyramid").tolist() == [1]
    with pytest.raises(InputError, match="'cosine' are unknown: choose uniform, pyramid"):
        frame_weights(4, "cosine")


def test_pyramid_weights_are_a_weighted_mean_of_the_windows(unet, golden, conditions):
    """One step; v of each window by itself, and their weighted mean in float64."""
    x, t = golden["xT"], Schedule().ddim_timesteps(1)[0]
    total, weight = torch.zeros_like(x, dtype=torch.float64), torch.zeros(20, 1, 1, dtype=torch.float64)
    for start in (0, 6, 12):
        part, share = slice(start, start + 8), torch.tensor([1, 2, 3, 4, 4, 3, 2, 1.0]).double()[:, None, None]
        with torch.no_grad():
            v = unet(x[:, :, part], torch.tensor([t]), **vars(conditions.frames(part)))
        total[:, :, part] += share * v
        weight[part] += share
    alphas = Schedule().alphas_cumprod
    v, alpha, following = total / weight, alphas[t], alphas[0]
    x0, epsilon = alpha.sqrt() * x - (1 - alpha).sqrt() * v, (1 - alpha).sqrt() * x + alpha.sqrt() * v
    expected = following.sqrt() * x0 + (1 - following).sqrt() * epsilon
    made = sample(unet, x, conditions, steps=1, guidance=1, window=8, overlap=2, window_weights="pyramid")
    assert relative_error(made, expected) < 1e-5


class Counter:
    """Counts how often a method runs."""

    def __init__(self, monkeypatch, unet, *names):
        self.calls = dict.fromkeys(names, 0)
        for name in names:
            monkeypatch.setattr(unet, name, self._counted(name, getattr(unet, name)))

    def _counted(self, name, function):
        def run(*args, **kwargs):
            self.calls[name] += 1
            return function(*args, **kwargs)

        return run


@pytest.mark.parametrize(("window", "windows"), [(None, 1), (8, 3)])
def test_condition_features_are_computed_once_per_sampling_and_window(
    unet, golden, conditions, monkeypatch, window, windows
):
    counter = Counter(monkeypatch, unet, "encode_pose", "encode_reference", "encode_first_frame", "denoise")
    overlap = 2 if window else 0
    sample(unet, golden["xT"], with_first_frame(conditions), steps=3, window=window, overlap=overlap)
    steps = len(Schedule().ddim_timesteps(3))
    assert counter.calls["encode_pose"] == windows
    assert counter.calls["encode_first_frame"] == windows
    assert counter.calls["encode_reference"] == windows + 1  # and once for the unconditional pass
    assert counter.calls["denoise"] == 2 * windows * steps


def test_guidance_of_one_runs_the_network_once_a_step(unet, golden, conditions, monkeypatch):
    counter = Counter(monkeypatch, unet, "denoise")
    sample(unet, golden["xT"], conditions, steps=2, guidance=1)
    assert counter.calls["denoise"] == len(Schedule().ddim_timesteps(2))


def test_one_ddim_step_by_the_papers_formula(unet, golden, conditions):
    """DDIM (arXiv 2010.02502, equation 12, sigma 0) in terms of epsilon, from the network's own v."""
    alphas = Schedule().alphas_cumprod
    x, t = golden["xT"], Schedule().ddim_timesteps(1)[0]
    with torch.no_grad():
        v = unet(x, torch.tensor([t]), **vars(conditions))
    alpha, following = float(alphas[t]), float(alphas[0])
    epsilon = math.sqrt(alpha) * v + math.sqrt(1 - alpha) * x
    x0 = (x - math.sqrt(1 - alpha) * epsilon) / math.sqrt(alpha)
    expected = math.sqrt(following) * x0 + math.sqrt(1 - following) * epsilon
    assert relative_error(sample(unet, x, conditions, steps=1, guidance=1), expected) < 1e-5


def test_callback_reports_and_may_cancel(unet, golden, conditions):
    seen = []

    def cancel(done, total, x0):
        seen.append((done, total, tuple(x0.shape)))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(unet, golden["xT"], conditions, steps=10, callback=cancel)
    assert seen == [(1, 10, (1, 4, 20, 12, 8)), (2, 10, (1, 4, 20, 12, 8))]


def test_offset_noise_has_the_strength_asked_for():
    noise = offset_noise((1, 4, 200, 24, 24), torch.Generator().manual_seed(0), 0.1)
    means = noise.mean((-2, -1))
    assert means.std() == pytest.approx(math.sqrt(0.1**2 + 1 / 24**2), rel=0.1)
    again = offset_noise((1, 4, 200, 24, 24), torch.Generator().manual_seed(0), 0.1)
    assert torch.equal(noise, again)


def test_bad_noise_and_conditions_are_named(unet, golden, conditions):
    noise = torch.zeros(1, 4, 2, 3, 3)
    with pytest.raises(InputError, match="timestep is 1000"):
        noise_prior(torch.zeros(1, 4, 3, 3), noise, 1000)
    with pytest.raises(InputError, match=r"\(1, 4, 3, 4\)"):
        noise_prior(torch.zeros(1, 4, 3, 4), noise)
    with pytest.raises(InputError, match="'pose' has shape 1 20"):
        sample(unet, golden["xT"][:, :, :10], conditions)
    with pytest.raises(InputError, match="windows at once are 0"):
        sample(unet, golden["xT"], conditions, window=8, windows_at_once=0)
    with pytest.raises(InputError, match="x_T has shape"):
        sample(unet, golden["xT"][0], conditions)
