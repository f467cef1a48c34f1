"""Several people in one motion, through a chain of edits."""

import numpy as np
import pytest
from graphs import DANCE

from unianimate_core import InputError, read_motion
from unianimate_core.pose import cleaning, follow_everyone, join_people, split_people
from unianimate_core.pose.several import pick_person


def dancers(frames=60):
    """Two who cross: the second is the first one's mirror image, half a canvas away at both ends."""
    dance = read_motion(DANCE)[:frames]
    way = np.linspace(-0.25, 0.25, frames)[:, None, None]
    tracks = [dance, cleaning.mirror(dance)]
    moved = []
    for track, sign in zip(tracks, (1, -1), strict=True):
        body = track.body + np.concatenate([sign * way, 0 * way], -1)
        moved.append(type(track)(body, width=track.width, height=track.height))
    return moved


def same(a, b):
    return all(np.allclose(x.body, y.body, atol=1e-9, equal_nan=True) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t,
        lambda t: cleaning.loop(t, 2),
        lambda t: cleaning.trim(t, 25, 10),
        lambda t: cleaning.retime(t, 30, 8, method="linear"),
    ],
    ids=["as they are", "loop", "trim", "retime"],
)
def test_people_keep_their_places_from_step_to_step(edit):
    tracks = [edit(track) for track in dancers()]
    assert same(split_people(join_people(tracks)), tracks)


def test_somebody_who_is_gone_for_long_stays_the_same_person():
    one, other = dancers()
    body = other.body.copy()
    body[20:50] = np.nan
    other = type(other)(body, width=other.width, height=other.height)
    assert same(split_people(join_people([one, other])), [one, other])


def test_people_listed_in_any_order_are_followed():
    tracks = dancers()
    frames = join_people(tracks)
    rng = np.random.default_rng(0)
    canvas = {name: frames[0][name] for name in ("canvas_width", "canvas_height")}
    shuffled = [{**canvas, "people": [frame["people"][n] for n in rng.permutation(2)]} for frame in frames]
    found = split_people(shuffled)
    assert same(found, tracks) or same(found[::-1], tracks)
    assert same(split_people(follow_everyone(shuffled)), found)
    assert not same(split_people(shuffled, follow=False), found)


def test_what_cannot_be_joined_or_split_is_refused():
    one, other = dancers()
    with pytest.raises(InputError, match="59 and 60 frames"):
        join_people([one[:59], other])
    with pytest.raises(InputError, match="1 x 1"):
        join_people([one, type(other)(other.body, width=1, height=1)])
    with pytest.raises(InputError, match="no frames"):
        join_people([])
    for wrong in ([], [{"people": 3}], "poses", [{"canvas_width": 8, "canvas_height": 8, "people": []}]):
        with pytest.raises(InputError):
            split_people(wrong)


def test_nobody_can_be_picked_of_nobody():
    with pytest.raises(InputError, match="no person in the motion; give one with someone in it"):
        pick_person([], 0)
