"""Who is who: people of known identity, moved through each other, in shuffled lists."""

import copy
import time
from pathlib import Path

import numpy as np
import pytest

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, read_motion
from unianimate_core.pose.people import CHOICES, follow_everyone, follow_person

WIDTH, HEIGHT = 1280, 768
DANCE = read_motion(Path(__file__).parents[1] / "samples" / "dance.json").body[:, :18] * (512, 768)  # 280 18 2, pixels
MIRROR = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
MIRRORED = DANCE[:, MIRROR] * (-1, 1) + (512, 0)
MIDDLE = DANCE.mean((0, 1))  # where a dancer is on average


def person(points, name, score=1.0):
    """A person as packs pass it, with a name that they carry along."""
    rows = np.column_stack([points, np.full(len(points), score)])
    rows[~np.isfinite(points).all(-1)] = 0
    return {"pose_keypoints_2d": rows.ravel().tolist(), "name": name}


def scene(paths, dances=(DANCE, MIRRORED), sizes=(1.0, 1.0, 1.0), noise=2.0, seed=0):
    """Frames with one dancer a path: name → middle of the person in each frame, in pixels, or None where not found.

    Dancers begin at other places of their dance; joints are noisy, the lists shuffled.
    """
    random = np.random.default_rng(seed)
    frames = []
    for number in range(max(map(len, paths.values()))):
        people = []
        for place, (name, path) in enumerate(paths.items()):
            if path[number] is None:
                continue
            pose = dances[place % 2][(70 * place + number) % 280]
            points = (pose - MIDDLE) * sizes[place] + path[number] + random.normal(0, noise, pose.shape)
            people.append(person(points, name))
        random.shuffle(people)
        frames.append({"canvas_width": WIDTH, "canvas_height": HEIGHT, "people": people})
    return frames


def line(start, end, frames, y=400.0):
    return [np.array([x, y]) for x in np.linspace(start, end, frames)]


def hidden(path, *frames):
    return [None if number in frames else place for number, place in enumerate(path)]


def names(frames):
    """The name in each place of the list: frame by frame, None where it is empty."""
    return [[someone.get("name") for someone in frame["people"]] for frame in frames]


def followed(frames, **options):
    """Whom `follow_person` gives in each frame: a name, or None."""
    given = follow_person(frames, **options)
    assert all(len(frame["people"]) <= 1 for frame in given)
    return [frame["people"][0]["name"] if frame["people"] else None for frame in given]


def places_keep_their_person(frames, **options):
    """Whether every place of `follow_everyone` holds one person only, and each person has one place."""
    columns = [
        {name for name in column if name} for column in zip(*names(follow_everyone(frames, **options)), strict=True)
    ]
    found = {someone["name"] for frame in frames for someone in frame["people"]}
    return sorted(map(sorted, columns)) == sorted([name] for name in found)


# Following


@pytest.mark.parametrize("speed", [3, 8, 20])
@pytest.mark.parametrize("lost", [0, 4, 12])
@pytest.mark.parametrize("seed", range(3))
def test_people_who_cross_stay_who_they_are(speed, lost, seed):
    """Two dancers through each other, one of them unseen while they meet."""
    a, b = line(640 - 40 * speed, 640 + 40 * speed, 80), line(640 + 40 * speed, 640 - 40 * speed, 80)
    frames = scene({"a": a, "b": hidden(b, *range(40 - lost // 2, 40 + lost // 2))}, seed=seed)
    assert places_keep_their_person(frames)
    assert followed(frames, choose="leftmost") == ["a"] * 80
    right = ["b" if f < 40 - lost // 2 or f >= 40 + lost // 2 else None for f in range(80)]
    assert followed(frames, choose="rightmost") == right


def test_three_of_other_sizes_cross():
    paths = {"a": line(200, 1000, 90, 300), "b": line(1000, 300, 90, 380), "c": line(600, 640, 90, 450)}
    assert places_keep_their_person(scene(paths, sizes=(0.5, 0.8, 1.0)))


def test_people_on_one_spot_are_told_apart_by_how_they_stand():
    """The box around both is the same: one has the other's pose, but for three joints within."""
    random = np.random.default_rng(2)
    poses = {"a": DANCE[0], "b": DANCE[0].copy()}
    poses["b"][[3, 9, 12]] += ((40, -20), (60, 0), (-50, 10))
    assert (np.ptp(poses["a"], 0) == np.ptp(poses["b"], 0)).all()
    frames = []
    for _ in range(30):
        people = [person(pose + random.normal(0, 1, pose.shape), name) for name, pose in poses.items()]
        random.shuffle(people)
        frames.append({"canvas_width": WIDTH, "canvas_height": HEIGHT, "people": people})
    assert places_keep_their_person(frames)


def test_half_the_frames_do():
    paths = {"a": line(200, 1000, 120), "b": line(1000, 200, 120)}
    assert places_keep_their_person(scene(paths)[::3])


def test_people_half_seen_stay_who_they_are():
    frames = scene({"a": line(300, 600, 60), "b": line(800, 1000, 60)})
    random = np.random.default_rng(5)
    for frame in frames:
        for someone in frame["people"]:
            rows = np.reshape(someone["pose_keypoints_2d"], (18, 3))
            rows[random.random(18) < 0.4] = 0
            rows[random.integers(18)] = (0, 0, 0)
            someone["pose_keypoints_2d"] = rows.ravel().tolist()
    assert places_keep_their_person(frames)


def test_who_turns_back_is_not_exchanged():
    meet = [*line(300, 560, 40), *line(560, 300, 40)]
    paths = {"a": meet, "b": [np.array([1280, 800]) - place for place in meet]}
    assert places_keep_their_person(scene(paths))


@pytest.mark.parametrize(("lost_frames", "found_again"), [(0, False), (7, False), (8, True), (30, True)])
def test_lost_frames_are_waited_for(lost_frames, found_again):
    paths = {"a": hidden(line(300, 340, 60), *range(20, 28)), "b": line(900, 940, 60)}
    frames = scene(paths)
    expected = ["a"] * 20 + [None] * 8 + (["a"] if found_again else [None]) * 32
    assert followed(frames, choose="leftmost", lost_frames=lost_frames) == expected


def test_who_comes_and_goes_does_not_disturb():
    paths = {
        "stays": line(500, 620, 100),
        "leaves": [*line(300, -250, 40), *[None] * 60],
        "enters": [*[None] * 50, *line(1500, 900, 50)],
    }
    frames = scene(paths)
    assert places_keep_their_person(frames)
    assert followed(frames, choose="leftmost") == ["leaves"] * 40 + [None] * 60  # nobody else is taken for them
    assert followed(frames) == ["stays"] * 100
    assert followed(frames, choose="rightmost") == ["stays"] * 100  # of the two in the first frame
    everyone = follow_everyone(frames)
    assert {len(frame["people"]) for frame in everyone} == {3}
    assert names(everyone)[0][0] == "stays"
    assert sorted(map(str, names(everyone)[45])) == ["None", "None", "stays"]


def test_a_lone_dancer_is_the_same_after_a_cut_and_after_a_long_gap():
    path = [*line(300, 320, 30), *line(1000, 1010, 30), *[None] * 40, *line(200, 210, 30)]
    assert followed(scene({"a": path})) == ["a"] * 60 + [None] * 40 + ["a"] * 30
    # Not so while somebody else is there, or comes back: then the newcomer is a newcomer.
    two = scene({"a": hidden(line(300, 310, 60), *range(20, 60)), "b": line(1000, 1010, 60)})
    two[40]["people"].append(person(DANCE[0] - (100, 0), "c"))
    assert followed(two, choose="leftmost") == ["a"] * 20 + [None] * 40
    two[40]["people"] = two[40]["people"][1:]
    assert followed(two, choose="leftmost") == ["a"] * 20 + [None] * 40


def test_single_frames_of_nobody_are_no_one():
    """A detector that now and then sees somebody in a chair."""
    frames = scene({"a": line(500, 700, 60)})
    for number in (3, 17, 41):
        frames[number]["people"].insert(0, person(DANCE[5] * 0.2 + (1100, 500), "chair"))
    assert followed(frames) == ["a"] * 60
    assert names(follow_everyone(frames))[3][0] == "a"


# Choosing


def four_people():
    """a, b, c, d from the left; b is largest, c scored best, d first in the list."""
    frames = []
    for _ in range(3):
        people = []
        for name, x, size, score in (
            ("d", 1100, 0.5, 0.8),
            ("b", 500, 0.9, 0.6),
            ("c", 800, 0.3, 0.9),
            ("a", 150, 0.4, 0.7),
        ):
            people.append(person((DANCE[0] - MIDDLE) * size + (x, 400), name, score))
        frames.append({"canvas_width": WIDTH, "canvas_height": HEIGHT, "people": people})
    return frames


@pytest.mark.parametrize(
    ("choose", "order"),
    [
        ("largest", "bdac"),
        ("leftmost", "abcd"),
        ("rightmost", "dcba"),
        ("highest score", "cdab"),
        ("index", "dbca"),
        ("nearest to point", "cdba"),
    ],
)
def test_people_are_chosen(choose, order):
    assert choose in CHOICES
    for index, name in enumerate(order):
        assert followed(four_people(), choose=choose, index=index, point=(0.7, 0.5)) == [name] * 3
    with pytest.raises(InputError, match=f"no person 4 by '{choose}'; give 0 to 3"):
        follow_person(four_people(), choose=choose, index=4)


def test_distances_to_the_point_are_those_of_the_picture():
    """0.2 of the width are farther than 0.2 of the height."""
    frame = four_people()[0]
    beside, below = (
        person((DANCE[0] - MIDDLE) * 0.1 + place, name)
        for place, name in (((896, 384), "beside"), ((640, 537), "below"))
    )
    assert followed([{**frame, "people": [beside, below]}], choose="nearest to point") == ["below"]


def test_the_largest_is_not_who_passes_by_first():
    paths = {"stays": [*[None] * 5, *line(640, 700, 55)], "passes": [*line(200, -100, 12), *[None] * 48]}
    frames = scene(paths, sizes=(0.7, 1.0))
    assert followed(frames) == [None] * 5 + ["stays"] * 55
    assert followed(frames, choose="leftmost")[:12] == ["passes"] * 12
    assert followed(frames, choose="rightmost")[:12] == ["passes"] * 12  # the only one in the first frame
    assert followed(frames, choose="rightmost", index=1)[:12] == ["passes"] * 12  # of the two in the sixth
    assert followed(frames, choose="leftmost", index=1)[12:] == ["stays"] * 48


# Frames


def test_frames_are_handed_on_as_they_were():
    frames = four_people()
    frames[1]["extra"] = "kept"
    before = copy.deepcopy(frames)
    given = follow_person(frames, choose="leftmost")
    assert frames == before
    assert [frame["people"] for frame in given] == [[frame["people"][3]] for frame in before]
    assert given[1]["extra"] == "kept"
    assert MotionTrack.from_pose_keypoints(given).present.all()
    for number, name in enumerate("bdac"):
        track = MotionTrack.from_pose_keypoints(follow_everyone(frames), person=number)
        points = next(one for one in before[0]["people"] if one["name"] == name)["pose_keypoints_2d"]
        np.testing.assert_allclose(track.body[0, 3] * (WIDTH, HEIGHT), points[9:11])


def test_empty_frames_people_and_lists_are_read():
    one = person(DANCE[0], "a")
    frames = [None, {}, {"people": None}, {"people": [None, {}, one]}, {"people": [{"pose_keypoints_2d": None}]}]
    frames += [
        {"canvas_width": 512, "canvas_height": 768, "people": [{}, one, person(np.full((18, 2), np.nan), "none")]}
    ]
    given = follow_person(frames)
    assert [frame["people"] for frame in given] == [[], [], [], [one], [], [one]]
    assert {(frame["canvas_width"], frame["canvas_height"]) for frame in given} == {(512, 768)}
    assert [frame["people"] for frame in follow_everyone(frames)] == [[{}], [{}], [{}], [one], [{}], [one]]
    assert followed(frames, choose="index", index=1) == [None, None, None, "a", None, "a"]
    assert followed(frames[-1]) == ["a"]


def test_fractions_nan_and_points_off_the_canvas():
    walking_out = scene({"a": line(1000, 1900, 40), "b": line(-200, 400, 40)})
    for frame in walking_out:
        frame["people"][0]["pose_keypoints_2d"][3:6] = [float("nan"), -5.0, 1.0]
    assert places_keep_their_person(walking_out)
    fractions = scene({"a": line(300, 900, 40), "b": line(900, 300, 40)})
    for frame in fractions:
        for someone in frame["people"]:
            rows = np.reshape(someone["pose_keypoints_2d"], (18, 3)) / (WIDTH, HEIGHT, 1)
            someone["pose_keypoints_2d"] = rows.ravel().tolist()
    assert places_keep_their_person(fractions)


def test_a_face_alone_is_followed():
    face = np.column_stack([np.arange(68), np.arange(68), np.ones(68)])
    frames = []
    for number in range(6):
        left, right = (
            {"face_keypoints_2d": np.add(face, (x + number, 100, 0)).ravel().tolist(), "name": x} for x in (50, 400)
        )
        frames.append({"canvas_width": 640, "canvas_height": 480, "people": [left, right][:: (-1) ** number]})
    assert followed(frames, choose="leftmost") == [50] * 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"choose": "tallest"}, "'tallest'.*largest, leftmost"),
        ({"index": -1}, "index is -1"),
        ({"index": 0.5}, "index is 0.5"),
        ({"lost_frames": -3}, "lost_frames is -3"),
        ({"point": (0.5,)}, r"point is \(0.5,\)"),
        ({"point": (0.5, float("nan"))}, "point is"),
        ({"point": None}, "point is None"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(InputError, match=words):
        follow_person(four_people(), **options)


@pytest.mark.parametrize("follow", [follow_person, follow_everyone])
@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "no frame"),
        ([{"canvas_width": 8, "canvas_height": 8, "people": []}], "no person in any of 1 frames"),
        ([{"canvas_width": 8, "canvas_height": 8, "people": [{}, None]}], "No person has a point in any of 1 frames"),
        ([{"people": [person(DANCE[0], "a")]}], "canvas_width"),
        ([{**four_people()[0], "people": [{"pose_keypoints_2d": [1.0] * 52}]}], "Frame 0: pose_keypoints_2d has 52"),
    ],
)
def test_what_shows_nobody_is_refused(follow, frames, words):
    with pytest.raises(InputError, match=words):
        follow(frames)


def test_a_long_motion_takes_seconds():
    frames = scene({"a": line(300, 500, 40), "b": line(800, 600, 40)}) * 50
    start = time.process_time()
    assert len(follow_person(frames)) == 2000
    assert time.process_time() - start < 6
