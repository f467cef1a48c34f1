"""A motion as CSV: written for others to read, and read back."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_tracks import all_points, all_scores, presence, random_track, tracks

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, read_motion
from unianimate_core.pose.export import read_csv, write_csv

HEADER = "frame,time,part,joint,x,y,score,canvas_width,canvas_height"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(track=tracks(spread=0.3))
def test_what_is_written_is_read_back(tmp_path, track):
    write_csv(track, tmp_path / "motion.csv", overwrite=True)
    back = read_csv(tmp_path / "motion.csv")
    assert (len(back), back.width, back.height) == (len(track), track.width, track.height)
    np.testing.assert_allclose(all_points(back), all_points(track), rtol=1e-12)
    # A part without a point has no scores to write.
    for part in ("body", "hands", "face"):
        if np.isfinite(getattr(track, part)).any():
            assert (getattr(back, f"{part}_scores") is None) == (getattr(track, f"{part}_scores") is None)
    known = ~np.isnan(all_scores(back))
    np.testing.assert_array_equal(all_scores(back)[known], all_scores(track)[known])


def test_the_example_survives(tmp_path):
    dance = read_motion(Path(__file__).parent.parent / "samples" / "dance.json")
    write_csv(dance, tmp_path / "dance.CSV")
    np.testing.assert_allclose(read_csv(tmp_path / "dance.CSV").body, dance.body, rtol=1e-12)


def test_the_table_is_tidy(tmp_path):
    body = np.full((3, 20, 2), np.nan)
    body[1, 4] = 0.25, 0.5
    hands = np.full((3, 2, 21, 2), np.nan)
    hands[2, 1, 8] = 0.5, 1.5
    scores = np.where(np.isnan(body[..., 0]), 0, 0.875)
    write_csv(MotionTrack(body, hands, width=400, height=200, body_scores=scores), tmp_path / "m.csv", fps=4)
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (20 + 21), "a body, and the hand that is seen"
    canvas = {"canvas_width": "400", "canvas_height": "200"}
    seen = [row for row in rows if row["x"]]
    assert seen == [
        {"frame": "1", "time": "0.25", "part": "body", "joint": "right_wrist", "x": "100.0", "y": "100.0"}
        | {"score": "0.875"}
        | canvas,
        {"frame": "2", "time": "0.5", "part": "right_hand", "joint": "8", "x": "200.0", "y": "300.0"}
        | {"score": ""}
        | canvas,
    ]
    absent = next(row for row in rows if not row["x"])
    assert (absent["y"], absent["score"]) == ("", "")


@pytest.mark.parametrize("separator", [",", ";"])
def test_tables_that_others_made_are_read(tmp_path, separator):
    text = "\ufeffjoint,part,canvas_height,canvas_width,x,y,frame,comment\n"
    text += "nose,body,100,200,50,25,2,hello\n\nleft_wrist,body,100,200, 20 ,30,0,\n66,face,100,200,,,3,\n"
    path = tmp_path / "table.csv"
    path.write_text(text.replace(",", separator), encoding="utf-8")
    track = read_csv(path)
    assert (len(track), track.width, track.height) == (4, 200, 100)
    assert track.body_scores is None
    assert presence(track).sum() == 2
    np.testing.assert_allclose(track.body[2, 0], (0.25, 0.25))
    np.testing.assert_allclose(track.body[0, 7], (0.1, 0.3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no column frame, part, joint, x, y, canvas_width, canvas_height"),
        ("frame,part,joint,x,canvas_width,canvas_height\n", "has no column y"),
        (HEADER + "\n", "holds no line but the first"),
        (HEADER + "\n0,0,body,nose,1,2\n", "line 2 has 6 columns, the first line 9"),
        (HEADER + "\n0,0,body,nose,1,2,1,9,9\n0,0,body,tail,1,2,1,9,9\n", "line 3: there is no joint 'tail'"),
        (HEADER + "\n0,0,left_hand,21,1,2,1,9,9\n", "no joint '21' of a part 'left_hand'"),
        (HEADER + "\n0.5,0,body,nose,1,2,1,9,9\n", "line 2: frame is 0.5, give a whole number from 0 to 999999"),
        (HEADER + "\n-1,0,body,nose,1,2,1,9,9\n", "frame is -1"),
        (HEADER + "\n1e9,0,body,nose,1,2,1,9,9\n", "frame is 1e9"),
        (HEADER + "\nnan,0,body,nose,1,2,1,9,9\n", "frame is nan"),
        (HEADER + "\n0,0,body,nose,one,2,1,9,9\n", "line 2: x is 'one', give a number"),
        (HEADER + "\n0,0,body,nose,1,,1,9,9\n", "line 2: y is '', give a number"),
        (HEADER + "\n0,0,body,nose,1,2,1,9,9\n1,0,body,nose,1,2,1,9,8\n", "line 3: the canvas is 9 x 8, another"),
        (HEADER + "\n0,0,body,nose,1,2,1,0,9\n", "line 2: the canvas is 0 x 9, give whole pixels"),
        (HEADER + "\n0,0,body,nose,1,2,1,nan,9\n", "line 2: the canvas is nan x 9"),
        (HEADER + "\n0,0,body,nose,1,2,1,inf,9\n", "line 2: the canvas is inf x 9"),
        (HEADER + "\n0,0,body,nose,1,2,1,9.5,9\n", "line 2: the canvas is 9.5 x 9"),
        (HEADER + "\n0,0,body,nose,1,2,1,,9\n", "line 2: the canvas's side is '', give a number"),
        ((HEADER + "\n0,0,body,nose,1,2,1,9,9\n") * 2, "line 3: frame is 'frame', give a number"),
        (HEADER + 2 * "\n0,0,body,nose,1,2,1,9,9", "line 3: body nose of frame 0 stands there already"),
        (HEADER + '\n0,0,body,"' + "a" * 200_000 + '"', "is not CSV"),
    ],
)
def test_broken_tables_are_named(tmp_path, text, words):
    (tmp_path / "broken.csv").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_csv(tmp_path / "broken.csv")
    assert "broken.csv" in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.csv"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0" * 9)
    with pytest.raises(InputError, match=r"picture\.csv is not text"):
        read_csv(tmp_path / "picture.csv")


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    track = random_track(0, 2)
    path = tmp_path / "motion.csv"
    write_csv(track, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists"):
        write_csv(track, path)
    monkeypatch.setattr("unianimate_core.pose.export._lines", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(InputError, match="cannot write"):
        write_csv(track, path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "fps", "words"),
    [
        ("motion.txt", 30, r"must end in one of \.csv"),
        ("no/motion.csv", 30, "no folder"),
        ("motion.csv", 0, "fps is 0"),
    ],
)
def test_wrong_places_and_rates_are_named(tmp_path, name, fps, words):
    with pytest.raises(InputError, match=words):
        write_csv(random_track(0, 2), tmp_path / name, fps)
