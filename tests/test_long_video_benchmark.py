"""The measures of the long-video benchmark, on videos whose seams and drift are known."""

import numpy as np
import pytest
from long_video import Setup, Way, borders, contact_sheet, identity, motion, seam_ratio

pytest.importorskip("skimage")

SETUP = Setup(None, None, (32, 48), 4, 1, 1.0, 0)


def test_borders():
    assert borders(SETUP, Way({}), 10) == [4, 7]  # 0-3, 3-6, 6-9: the first new frames
    assert borders(SETUP, Way({"shared": 2}), 8) == [4, 6]
    assert borders(SETUP, Way(None, {"window": 4, "overlap": 1}), 10) == [3, 4, 6, 7]
    assert borders(SETUP, Way({}, {"window": 4, "overlap": 1}, scale=2), 8) == [3, 4, 7]  # one segment; at 0, 3, 4


def test_seam_ratio():
    values = np.array([0, 2, 4, 6, 12, 14, 16, 22, 24], np.uint8)  # steps of 2, but 6 onto frames 4 and 7
    video = np.broadcast_to(values[:, None, None, None], (9, 8, 8, 3))
    assert seam_ratio(video, [4, 7]) == pytest.approx(3)
    assert np.isnan(seam_ratio(video[:1].repeat(9, 0), [4]))


def test_identity_is_the_distance_of_the_limbs_colours():
    """A person of one grey, which grows from Lab's L 50 to 60 on a background that does not count."""
    colour = pytest.importorskip("skimage.color")
    bodies = motion(3).body
    greys = [(colour.lab2rgb([[[lightness, 0, 0]]])[0, 0] * 255).round() for lightness in (50, 60)]
    video = np.stack([np.full((96, 64, 3), grey, np.uint8) for grey in (greys[0], greys[1], greys[1])])
    distance = identity(video, bodies, video[0], bodies[0])
    expected = colour.deltaE_ciede2000(*(colour.rgb2lab(grey[None] / 255)[0] for grey in greys))
    np.testing.assert_allclose(distance, [0, expected, expected], atol=1e-6)


def test_the_dance_goes_to_and_fro_without_a_jump():
    bodies = motion(600).body
    steps = np.nanmean(np.abs(np.diff(bodies, axis=0)), axis=(1, 2))
    assert len(bodies) == 600
    assert steps.max() <= np.nanmean(np.abs(np.diff(motion(280).body, axis=0)), axis=(1, 2)).max()


def test_contact_sheet():
    video = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    assert contact_sheet(video, [4, 7])[::2, ::2, 0].tolist() == [[3, 6], [4, 7]]
