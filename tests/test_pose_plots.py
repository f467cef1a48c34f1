"""Plots of motions: what matplotlib is told to draw, and sheets of skeletons."""

import sys

import numpy as np
import pytest
from random_tracks import random_track

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, draw_motion, plots
from unianimate_core.pose.keypoints import BODY_JOINTS
from unianimate_core.pose.plots import MAIN_JOINTS, plot_tracks, plot_visibility, skeleton_sheet

TRACK = random_track(1, 30, presence=0.8, spread=0.02, scored=True, canvas=(300, 400))
BEFORE = random_track(2, 30, presence=0.8, spread=0.02, scored=False, canvas=(300, 400))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    drawn = []
    draw = plots.draw_figure
    monkeypatch.setattr(plots, "draw_figure", lambda figure: drawn.append(figure) or draw(figure))
    return drawn


def curves(axis):
    """What an axis shows, by label: x and y of its lines, without the dots of single frames."""
    return {line.get_label(): line.get_xydata() for line in axis.lines if line.get_linestyle() != "None"}


@pytest.mark.parametrize("joints", [None, ["left_toes"], list(BODY_JOINTS)])
def test_joints_are_drawn_over_time_in_pixels(figures, joints):
    picture = plot_tracks(TRACK, joints, fps=25)
    assert picture.dtype == np.uint8
    assert picture.shape == (640, 1100, 3)
    for coordinate, side, axis in zip((0, 1), (300, 400), figures[0].axes, strict=True):
        shown = curves(axis)
        assert list(shown) == [joint.replace("_", " ") for joint in joints or MAIN_JOINTS]
        for name, line in shown.items():
            course = TRACK.body[:, BODY_JOINTS.index(name.replace(" ", "_")), coordinate] * side
            np.testing.assert_allclose(line, np.stack([np.arange(30) / 25, course], -1))
    bottom, top = figures[0].axes[1].get_ylim()
    assert bottom > top, "what is up in the picture must be up in the plot"
    assert figures[0].axes[1].get_xlabel() == "seconds"


def test_before_is_drawn_beneath(figures):
    plot_tracks(TRACK, ["nose"], before=BEFORE)
    thin, thick = (line for line in figures[0].axes[0].lines if line.get_linestyle() != "None")
    np.testing.assert_allclose(thin.get_ydata(), BEFORE.body[:, 0, 0] * 300)
    np.testing.assert_allclose(thick.get_ydata(), TRACK.body[:, 0, 0] * 300)
    assert thin.get_linewidth() < thick.get_linewidth()
    assert figures[0].axes[1].get_xlabel() == "frame"


def test_a_joint_seen_in_single_frames_gets_dots(figures):
    body = np.full((6, 20, 2), np.nan)
    body[[0, 2, 3, 5], 4] = [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.4, 0.4]]
    plot_tracks(MotionTrack(body, width=10, height=10), ["right_wrist"])
    (dots,) = (line for line in figures[0].axes[0].lines if line.get_linestyle() == "None")
    np.testing.assert_allclose(dots.get_xydata(), [[0, 1], [5, 4]])


def test_visibility_shows_scores_and_absences(figures):
    picture = plot_visibility(TRACK, before=BEFORE)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    before, after = (axis.images[0].get_array() for axis in figures[0].axes[:2])
    np.testing.assert_allclose(after[:20], TRACK.body_scores.T)
    np.testing.assert_allclose(after[20:22], TRACK.hands_scores.mean(-1).T)
    np.testing.assert_allclose(after[22], TRACK.face_scores.mean(-1))
    np.testing.assert_allclose(before[:20], np.isfinite(BEFORE.body[..., 0]).T, err_msg="unknown scores count as 1")
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert labels == [*(joint.replace("_", " ") for joint in BODY_JOINTS), "left hand", "right hand", "face"]


@pytest.mark.parametrize("frames", [1, 3, 10_000])
def test_motions_of_all_lengths_are_drawn(frames):
    body = np.full((frames, 20, 2), np.nan)
    track = MotionTrack(body, width=30, height=40)
    for picture in (plot_tracks(track), plot_visibility(track), skeleton_sheet(track)):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3


def tiles(sheet, columns, height, width):
    rows = sheet.reshape(-1, height + 2, columns, width + 2, 3).swapaxes(1, 2)
    return rows[:, :, 1:-1, 1:-1].reshape(-1, height, width, 3)


def test_a_sheet_shows_equally_spaced_frames():
    sheet = skeleton_sheet(TRACK, 4, 120, rows=2)
    shown = tiles(sheet, 4, 120, 90)
    expected = draw_motion(TRACK, 90, 120)[[0, 4, 8, 12, 17, 21, 25, 29]]
    np.testing.assert_array_equal(shown[:, 20:], expected[:, 20:])  # below the numbers
    assert (shown[:, :20] != expected[:, :20]).any((1, 2, 3)).all(), "frames have no numbers"


def test_a_sheet_shows_before_above_after():
    sheet = skeleton_sheet(TRACK, 3, 120, rows=2, before=BEFORE)
    shown = tiles(sheet, 3, 120, 90)[:, 20:]
    chosen = [0, 6, 12, 17, 23, 29]
    before, after = (draw_motion(track, 90, 120)[chosen][:, 20:] for track in (BEFORE, TRACK))
    np.testing.assert_array_equal(shown, np.concatenate([before[:3], after[:3], before[3:], after[3:]]))


def test_a_short_motion_makes_a_small_sheet():
    assert skeleton_sheet(TRACK[:2], 8, 120).shape == (122, 2 * 92, 3)
    assert skeleton_sheet(TRACK[:5], 3, 120).shape == (2 * 122, 3 * 92, 3)


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        (lambda: plot_tracks(TRACK, ["nose", "tail"]), "no joint 'tail': give some of nose, neck"),
        (lambda: plot_tracks(TRACK, []), "no joint is chosen: give some of nose, neck"),
        (lambda: plot_tracks(TRACK, fps=0), "fps is 0"),
        (lambda: skeleton_sheet(TRACK, 0), "columns is 0: give a whole number from 1 to 4096"),
        (lambda: skeleton_sheet(TRACK, 3, 12.5), "size is 12.5"),
        (lambda: skeleton_sheet(TRACK, before=BEFORE[:4]), "before has 4 frames, and the motion 30"),
    ],
)
def test_wrong_settings_are_named(plot, words):
    with pytest.raises(InputError, match=words):
        plot()


def test_without_matplotlib_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for plot in (plot_tracks, plot_visibility):
        with pytest.raises(InputError, match="install matplotlib, or the extra `evaluate`"):
            plot(TRACK)
