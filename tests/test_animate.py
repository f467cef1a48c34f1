"""What `animate` hands to the sampling and what it makes of the result, with small networks and a stub for `sample`."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from synthetic import GOLDEN

import unianimate_core.animate as module
from unianimate_core import InputError, MotionTrack, draw_motion, offset_noise
from unianimate_core.animate import Settings, animate

SETTINGS = Settings(width=64, height=96, frames=3, start=1, steps=2, seed=5)


class Autoencoder:
    """Latents are means of blocks of 8 x 8 pixels and a fourth channel of ones; decoding shows the first three."""

    def encode(self, pixels):
        means = torch.nn.functional.avg_pool2d(pixels, 8)  # b 3 h w
        return torch.cat((means, torch.ones_like(means[:, :1])), dim=1)

    def decode_groups(self, latents):
        for part in latents.split(2):
            yield part[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2).sigmoid()


class Network:
    empty_prompt = torch.zeros(77, 8)


@pytest.fixture
def motion():
    """Six frames of a person on a canvas of the video's aspect ratio."""
    random = np.random.default_rng(0)
    return MotionTrack(body=random.uniform(0.2, 0.8, (6, 20, 2)), width=200, height=300)


@pytest.fixture
def picture():
    return torch.rand(96, 64, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sampled(monkeypatch):
    """The arguments of `sample`, which returns a latent whose frames count upwards."""
    calls = []

    def sample(unet, x_T, conditions, steps, guidance, window, overlap, callback, **options):
        calls.append({"x_T": x_T, "conditions": conditions, "steps": steps, "guidance": guidance})
        return torch.arange(x_T.shape[2])[:, None, None].expand(x_T.shape).float() - 1

    monkeypatch.setattr(module, "sample", sample)
    return calls


def run(picture, motion, settings=SETTINGS, **options):
    return list(animate(Network(), Autoencoder(), picture, motion, settings, **options))


def drawn(track, width=64, height=96):
    return torch.from_numpy(draw_motion(track, width, height)).permute(0, 3, 1, 2) / 255  # f 3 H W


def test_the_conditions_are_those_of_picture_and_motion(sampled, picture, motion):
    text = torch.rand(77, 8)
    run(picture, motion, text=text, image=torch.arange(3.0))
    (call,) = sampled
    conditions = call["conditions"]
    assert torch.equal(conditions.pose, drawn(motion[1:4])[None])
    assert torch.equal(conditions.reference, Autoencoder().encode(picture.permute(2, 0, 1)[None]))
    assert torch.equal(conditions.reference_pose, drawn(motion[1:2]))
    assert torch.equal(conditions.text, text[None])
    assert torch.equal(conditions.image, torch.arange(3.0)[None])
    assert conditions.first_frame is None
    assert (call["steps"], call["guidance"]) == (SETTINGS.steps, SETTINGS.guidance)


def test_absent_conditions_stay_absent(sampled, picture, motion):
    run(picture, motion)
    assert sampled[0]["conditions"].text is None
    assert sampled[0]["conditions"].image is None


def test_reference_pose_is_cropped_as_the_picture(sampled, motion):
    """A picture twice as wide as the video is cut to its middle half; so is the pose, and CLIP sees all of it."""
    wide = torch.zeros(96, 128, 3)
    wide[:, 32:96] = torch.rand(96, 64, 3)
    points = np.random.default_rng(1).uniform(0.3, 0.7, (1, 20, 2))
    run(
        wide,
        motion,
        reference_pose=MotionTrack(body=points, width=1280, height=960),
    )
    middle = MotionTrack(body=(points - [0.25, 0]) / [0.5, 1], width=640, height=960)
    conditions = sampled[0]["conditions"]
    assert torch.equal(conditions.reference_pose, drawn(middle))
    assert torch.equal(conditions.reference, Autoencoder().encode(wide[:, 32:96].permute(2, 0, 1)[None]))


@pytest.mark.parametrize(("fit", "shown"), [("crop", (0.25, 0, 0.75, 1)), ("stretch", (0, 0, 1, 1))])
def test_a_motion_of_another_aspect_is_fitted(sampled, picture, motion, fit, shown):
    wide = MotionTrack(body=motion.body, width=400, height=300)
    run(picture, wide, dataclasses.replace(SETTINGS, fit=fit))
    expected = drawn(wide[1:4].crop(*shown))
    assert torch.equal(sampled[0]["conditions"].pose[0], expected)
    assert torch.equal(sampled[0]["conditions"].reference_pose, expected[:1])


def test_the_standing_pose_is_the_first_that_shows_a_person(sampled, picture, motion):
    body = motion.body.copy()
    body[[1, 3]] = np.nan
    gaps = MotionTrack(body=body, width=200, height=300)
    run(picture, gaps)
    run(picture, motion, reference_pose=gaps[1:])
    for call in sampled:
        assert torch.equal(call["conditions"].reference_pose, drawn(motion[2:3]))
    assert (sampled[0]["conditions"].pose[0, [0, 2]] == 0).all()


def noise():
    return offset_noise((1, 4, 3, 12, 8), torch.Generator().manual_seed(SETTINGS.seed))


@pytest.mark.parametrize("prior", [949, 939, 1])
def test_sampling_starts_from_the_noised_reference(sampled, picture, motion, prior):
    run(picture, motion, dataclasses.replace(SETTINGS, prior=prior))
    alpha = load_file(GOLDEN / "sampling_small.safetensors")["alphas_cumprod"][prior]
    z = Autoencoder().encode(picture.permute(2, 0, 1)[None])[:, :, None]
    expected = alpha.sqrt() * z + (1 - alpha).sqrt() * noise()
    assert torch.allclose(sampled[0]["x_T"], expected.float(), atol=1e-6)


def test_without_prior_sampling_starts_from_pure_noise(sampled, picture, motion):
    run(picture, motion, dataclasses.replace(SETTINGS, prior=0))
    assert torch.equal(sampled[0]["x_T"], noise())


def test_frames_come_out_in_order(sampled, picture, motion):
    groups = run(picture, motion)
    assert [len(group) for group in groups] == [2, 1]
    frames = torch.cat(groups)
    assert frames.shape == (3, 96, 64, 3)
    assert frames.dtype == torch.float32
    expected = torch.tensor([-1.0, 0.0, 1.0]).sigmoid()
    assert torch.allclose(frames, expected[:, None, None, None].expand_as(frames))


BAD = [
    ({"width": 0}, "width is 0.*multiple of 8.*8"),
    ({"height": -8}, "height is -8"),
    ({"width": 60}, "width is 60.*56 or 64"),
    ({"height": 5}, "height is 5.*for example 8$"),
    ({"frames": 0}, "frames is 0.*1 to 5 from frame 1"),
    ({"frames": 6}, "frames is 6.*1 to 5 from frame 1"),
    ({"start": -1}, "start is -1.*6 frames, 0 to 5"),
    ({"start": 6}, "start is 6.*6 frames, 0 to 5"),
    ({"steps": 0}, "steps is 0"),
    ({"steps": 1001}, "steps is 1001"),
    ({"guidance": float("nan")}, "guidance is nan"),
    ({"guidance": float("inf")}, "guidance is inf"),
    ({"guidance": -1.0}, "guidance is -1"),
    ({"prior": 1000}, "timestep is 1000"),
    ({"prior": -1}, "timestep is -1"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**64}, "seed is 18446744073709551616"),
    ({"fit": "tile"}, "fit is 'tile'"),
]


@pytest.mark.parametrize(("change", "match"), BAD, ids=[str(change) for change, _ in BAD])
def test_bad_settings_are_refused_when_called_not_when_iterated(sampled, picture, motion, change, match):
    with pytest.raises(InputError, match=match):
        animate(Network(), Autoencoder(), picture, motion, dataclasses.replace(SETTINGS, **change))


def test_bad_inputs_are_refused_when_called_not_when_iterated(picture, motion):
    absent = np.full((6, 20, 2), np.nan)
    absent[0] = 0.5
    mostly_nobody = MotionTrack(body=absent, width=200, height=300)
    with pytest.raises(InputError, match="nobody in its frames 1 to 3"):
        animate(Network(), Autoencoder(), picture, mostly_nobody, SETTINGS)
    with pytest.raises(InputError, match="reference pose shows nobody"):
        animate(Network(), Autoencoder(), picture, motion, SETTINGS, reference_pose=mostly_nobody[1])
    with pytest.raises(InputError, match="h w 3"):
        animate(Network(), Autoencoder(), picture[..., 0], motion, SETTINGS)
    needy = Network()
    needy.empty_prompt = None
    with pytest.raises(InputError, match="no text tokens"):
        animate(needy, Autoencoder(), picture, motion, SETTINGS)


def test_the_ends_of_the_ranges_are_allowed(sampled, picture, motion):
    settings = dict.fromkeys(("start", "guidance", "prior", "seed"), 0)
    for change in (settings, {"steps": 1000, "prior": 999, "seed": 2**64 - 1, "start": 3}):
        run(picture, motion, dataclasses.replace(SETTINGS, **change))
    assert len(sampled) == 2
