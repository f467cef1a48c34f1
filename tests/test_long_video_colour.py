"""Colours of person and background, measured and held; against NumPy in float64 and OpenCV."""

import cv2
import numpy as np
import pytest
import torch

from unianimate_core import MotionTrack, draw_motion
from unianimate_core.video.colour import (
    ColourStatistics,
    colour_statistics,
    hold_colours,
    mean_statistics,
    person_mask,
)


def drawn(body, width=64, height=96):
    pictures = draw_motion(MotionTrack(body=body, width=width, height=height), width, height)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255


@pytest.fixture
def frames():
    return torch.from_numpy(np.random.default_rng(0).integers(20, 200, (5, 24, 16, 3), dtype=np.uint8))


@pytest.fixture
def mask():
    return torch.rand(5, 24, 16, generator=torch.Generator().manual_seed(0))


def by_numpy(frame, weight):
    pixels = frame.numpy().reshape(-1, 3) / 255
    mean = np.average(pixels, axis=0, weights=weight)
    return mean, np.sqrt(np.average((pixels - mean) ** 2, axis=0, weights=weight))


def test_statistics_are_weighted_means_and_deviations(frames, mask):
    measured = colour_statistics(frames, mask)
    for frame, weight, mean, deviation in zip(frames, mask, measured.mean, measured.deviation, strict=True):
        person = weight.double().numpy().ravel()
        for part, weights in enumerate((person, 1 - person)):
            expected = by_numpy(frame, weights)
            np.testing.assert_allclose(mean[part], expected[0], atol=1e-5)
            np.testing.assert_allclose(deviation[part], expected[1], atol=1e-5)


def test_held_frames_have_the_target_statistics(frames):
    hard = (torch.arange(16) < 7).float().expand(5, 24, 16)
    target = ColourStatistics(torch.tensor([[0.5, 0.4, 0.6], [0.3, 0.5, 0.4]]), torch.full((2, 3), 0.15))
    frames = frames[:1].expand(5, -1, -1, -1)
    held = mean_statistics(colour_statistics(hold_colours(frames, hard, target), hard))
    assert (held.mean - target.mean).abs().max() < 2 / 255
    assert (held.deviation - target.deviation).abs().max() < 2 / 255


def test_frames_that_have_the_colours_already_stay(frames, mask):
    frames = frames[:1].expand(5, -1, -1, -1)
    mask = mask[:1].expand(5, -1, -1)
    target = mean_statistics(colour_statistics(frames, mask))
    assert (hold_colours(frames, mask, target).int() - frames.int()).abs().max() <= 1


def test_flicker_is_not_mended_but_a_trend_is():
    grey = torch.tensor([100, 110, 120, 130, 140]) + torch.tensor([2, -4, 4, -4, 2])  # whose trend is 10 a frame
    frames = grey.to(torch.uint8)[:, None, None, None].expand(5, 8, 8, 3)
    target = ColourStatistics(torch.full((2, 3), 120 / 255), torch.full((2, 3), torch.nan))
    held = hold_colours(frames, torch.zeros(5, 8, 8), target)[:, 0, 0, 0].int()
    grey = grey.numpy()
    expected = 120 + (grey - np.polyval(np.polyfit(np.arange(5), grey, 1), np.arange(5)))
    np.testing.assert_allclose(held, expected, atol=1)


def test_where_nobody_is_the_background_alone_is_held(frames):
    nobody = torch.zeros(5, 24, 16)
    target = mean_statistics(colour_statistics(frames, nobody))
    assert target.mean[0].isnan().all()
    assert (hold_colours(frames, nobody, target).int() - frames.int()).abs().max() <= 30
    single = hold_colours(frames[:1], nobody[:1], target)
    assert single.shape == (1, 24, 16, 3)


def test_the_persons_mask_is_the_skeleton_made_wider():
    body = np.full((2, 20, 2), np.nan)
    body[:, 1], body[:, 8] = (0.5, 0.2), (0.5, 0.8)  # neck and a hip: a line of 0.6 of the height
    pose = drawn(body)
    mask = person_mask(pose)
    assert mask.shape == (2, 96, 64)
    assert mask.min() == 0
    assert mask.max() == pytest.approx(1)
    skeleton = (pose.sum(1) > 0).numpy()
    assert mask.numpy()[skeleton].min() > 0.5
    height = np.flatnonzero(skeleton[0].any(1))
    radius = round(0.06 * (height[-1] - height[0] + 1))
    square = np.ones((4 * radius + 1, 4 * radius + 1), np.uint8)  # widening and blur reach as far each
    reach = cv2.dilate(skeleton[0].astype(np.uint8), square).astype(bool)
    assert (mask[0].numpy()[~reach] == 0).all()
    assert not person_mask(drawn(np.full((1, 20, 2), np.nan))).any()
