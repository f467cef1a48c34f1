"""Synthetic people: exact, endless, and the same from the same seed."""

import json

import numpy as np
import pytest
from graphs import DANCE
from typer.testing import CliRunner

from unianimate_core import InputError, MotionTrack, read_motion
from unianimate_core.cli import app
from unianimate_core.training.puppets.dataset import Recipe, make_clip, write_puppets
from unianimate_core.training.puppets.drawing import PARTS, draw_person
from unianimate_core.training.puppets.motions import mirror, with_proportions
from unianimate_core.training.puppets.people import random_person
from unianimate_core.training.puppets.scenes import random_scene
from unianimate_core.training.puppets.skeleton import random_motion
from unianimate_core.video.reading import read_video

JOINT_OF = {"left_hand": 7, "right_hand": 4, "left_foot": 18, "right_foot": 19, "face": 0}


def test_a_seed_is_a_clip():
    first, track = make_clip(Recipe(seed=5, frames=3), 2)
    again, same = make_clip(Recipe(seed=5, frames=3), 2)
    other, _ = make_clip(Recipe(seed=6, frames=3), 2)
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(track.body, same.body)
    assert np.abs(first.frames.astype(int) - other.frames).mean() > 10


def test_limbs_are_where_the_joints_are():
    """The labels around each wrist, foot and nose are the part's own, wherever nothing lies over it."""
    found, asked = 0, 0
    for index in range(12):
        drawn, track = make_clip(Recipe(seed=1, frames=4, motions=[read_motion(DANCE)]), index)
        height, width = drawn.labels.shape[1:]
        for labels, body in zip(drawn.labels, track.body * (width, height), strict=True):
            for part, joint in JOINT_OF.items():
                x, y = body[joint]
                if np.isfinite(x) and 2 <= x < width - 2 and 2 <= y < height - 2:
                    near = labels[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
                    asked += 1
                    found += (near == PARTS.index(part)).any()
    assert asked > 120
    assert found > 0.85 * asked


def test_nothing_changes_outside_the_person_but_the_shadow():
    drawn, _ = make_clip(Recipe(seed=3, frames=6), 0)
    outside = drawn.labels == 0
    change = np.abs(drawn.frames.astype(int) - drawn.background).max(-1)
    brighter = (drawn.frames.astype(int) - drawn.background).min(-1)
    upper = np.zeros_like(outside)
    upper[:, : drawn.labels.shape[1] // 2] = True
    assert np.percentile(change[outside & upper], 90) <= 1  # the soft lens mixes person and background at edges
    assert np.percentile(brighter[outside], 95) <= 1


def test_absent_joints_are_not_drawn():
    random = np.random.default_rng(0)
    person, clothes = random_person(random), np.zeros((1, 3))
    scene = random_scene(random, 128, 192, clothes)
    track = read_motion(DANCE)[:2]
    body = track.body.copy()
    body[:, 4] = np.nan  # the right wrist
    labels = draw_person(person, scene, MotionTrack(body, width=128, height=192)).labels
    assert not np.isin(labels, [PARTS.index("right_hand"), PARTS.index("right_forearm")]).any()
    nobody = draw_person(person, scene, MotionTrack(np.full((1, 20, 2), np.nan), width=128, height=192))
    assert not nobody.labels.any()


def test_mirrored_twice_is_the_same():
    body = read_motion(DANCE).body
    np.testing.assert_array_equal(mirror(mirror(body)), body)
    np.testing.assert_allclose(mirror(body)[:, 4], body[:, 7] * (-1, 1))


def test_proportions_keep_every_direction():
    random = np.random.default_rng(1)
    person = random_person(random)
    body = read_motion(DANCE).body
    new = with_proportions(body, person)
    for a, b, name in ((2, 3, "arms"), (6, 7, "arms"), (8, 9, "legs"), (12, 13, "legs"), (1, 0, "neck")):
        np.testing.assert_allclose(
            new[:, b] - new[:, a], person.proportions[name] * (body[:, b] - body[:, a]), atol=1e-12
        )


def test_generated_motions_have_limbs_of_constant_length_in_depth():
    """A projected limb is never longer than the limb, and the person stands on the ground."""
    for seed in range(20):
        body = random_motion(np.random.default_rng(seed), 40)
        assert np.isfinite(body[:, 1:14]).all()
        assert np.linalg.norm(body[:, 3] - body[:, 2], axis=-1).max() <= 0.47 + 1e-9
        assert np.linalg.norm(body[:, 9] - body[:, 8], axis=-1).max() <= 0.82 + 1e-9
        np.testing.assert_allclose(body[:, [10, 13], 1].max(1), 0, atol=1e-9)


def test_the_command_writes_what_training_and_evaluation_read(tmp_path):
    folder = tmp_path / "people"
    options = ["--count", "2", "--frames", "5", "--motion", str(DANCE), "--part", "180:280", "--exact", "--labels"]
    result = CliRunner().invoke(app, ["puppets", str(folder), *options])
    assert result.exit_code == 0, result.output
    recipe = Recipe(frames=5, motions=[read_motion(DANCE)[180:280]], exact=True)
    for index in range(2):
        drawn, track = make_clip(recipe, index)
        frames, rate = read_video(folder / f"person_{index:05d}.mkv")
        np.testing.assert_array_equal(frames, drawn.frames)
        assert rate == 30
        motion = read_motion(folder / f"person_{index:05d}.json")
        np.testing.assert_allclose(motion.body, track.body, atol=1e-5)
        assert len(json.loads((folder / f"person_{index:05d}.json").read_text())) == 5
        parts = np.load(folder / "parts" / f"person_{index:05d}.npz")
        np.testing.assert_array_equal(parts["labels"], drawn.labels)
        assert tuple(parts["names"]) == PARTS
    before = (folder / "person_00000.mkv").stat().st_mtime_ns
    assert CliRunner().invoke(app, ["puppets", str(folder), *options, "--count", "3"]).exit_code == 0
    assert (folder / "person_00000.mkv").stat().st_mtime_ns == before
    assert (folder / "person_00002.json").exists()


def test_a_folder_holds_one_recipe(tmp_path):
    small = {"width": 32, "height": 32, "frames": 1}
    write_puppets(tmp_path, Recipe(**small, seed=1), 1)
    with pytest.raises(InputError, match="seed 1 there, 2 now"):
        write_puppets(tmp_path, Recipe(**small, seed=2), 1)
    assert not (tmp_path / "parts").exists()
    write_puppets(tmp_path, Recipe(**small, seed=1), 1, parts=True)
    assert (tmp_path / "parts" / "person_00000.npz").exists()


def test_a_motion_with_gaps_drives_the_rest():
    track = read_motion(DANCE)[:3]
    body = track.body.copy()
    body[1] = np.nan
    gaps = MotionTrack(body, width=track.width, height=track.height)
    drawn, _ = make_clip(Recipe(frames=3, motions=[gaps], exact=True), 0)
    assert [bool(labels.any()) for labels in drawn.labels] == [True, False, True]
    nobody = MotionTrack(np.full((2, 20, 2), np.nan), width=8, height=8)
    with pytest.raises(InputError, match="motion 1 never shows"):
        Recipe(motions=[gaps, nobody]).check()


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (Recipe(width=130), "130"),
        (Recipe(frames=0), "frames is 0"),
        (Recipe(generated=1.5), "1.5"),
        (Recipe(exact=True), "motion"),
    ],
)
def test_bad_recipes_are_refused(recipe, named):
    with pytest.raises(InputError, match=named):
        recipe.check()


def test_a_bad_part_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["puppets", str(tmp_path / "x"), "--part", "a:b"])
    assert isinstance(result.exception, InputError)
    assert "a:b" in str(result.exception)
    assert not (tmp_path / "x").exists()
