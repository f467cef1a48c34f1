"""The plan of a long video: which frames belong to which segment."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unianimate_core.errors import InputError
from unianimate_core.video.plan import join_shared, plan_segments

LAST = ["shorten", "overlap", "pad"]


def check(frames, length, shared, last):
    written: list[int] = []
    for segment in plan_segments(frames, length, shared, last):
        poses = segment.poses()
        assert len(poses) == segment.length
        # the frames shared are the last ones written, in their order
        assert poses[: segment.shared] == written[len(written) - segment.shared :]
        new = poses[segment.shared : segment.length - segment.padding]
        assert len(new) == segment.added > 0
        written += new
    assert written == list(range(frames)), (frames, length, shared, last)


@pytest.mark.parametrize("last", LAST)
def test_every_frame_once_and_in_order(last):
    for frames in range(1, 401):
        for length in range(2, 65):
            check(frames, length, 1, last)


@given(st.data())
def test_every_frame_once_and_in_order_whatever_is_shared(data):
    length = data.draw(st.integers(2, 64))
    check(
        data.draw(st.integers(1, 400)), length, data.draw(st.integers(1, length - 1)), data.draw(st.sampled_from(LAST))
    )


@pytest.mark.parametrize("last", LAST)
def test_only_the_last_segment_is_another(last):
    for frames, length, shared in [(100, 16, 1), (97, 32, 4), (16, 16, 1), (17, 16, 1), (5, 16, 2)]:
        *rest, end = plan_segments(frames, length, shared, last)
        assert {segment.length for segment in rest} <= {length}
        assert {segment.shared for segment in rest[1:]} <= {shared}
        assert not any(segment.padding for segment in rest)
        if last != "shorten" and (frames >= length or last == "pad"):
            assert end.length == length
        assert end.padding == 0 or last == "pad"
        # the frame that a segment begins from was made by the segment right before it
        plan = [*rest, end]
        assert all(before.start < after.start < before.end for before, after in itertools.pairwise(plan))


def test_examples_of_the_docstring():
    def spans(plan):
        return [(s.start, s.start + s.length - 1, s.shared, s.padding) for s in plan]

    assert spans(plan_segments(10, 4)) == [(0, 3, 0, 0), (3, 6, 1, 0), (6, 9, 1, 0)]
    assert spans(plan_segments(9, 4)) == [(0, 3, 0, 0), (3, 6, 1, 0), (6, 8, 1, 0)]
    assert spans(plan_segments(9, 4, last="overlap")) == [(0, 3, 0, 0), (3, 6, 1, 0), (5, 8, 2, 0)]
    assert spans(plan_segments(9, 4, last="pad")) == [(0, 3, 0, 0), (3, 6, 1, 0), (6, 9, 1, 1)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 16), "0 frames"),
        ((10, 1), "segment length is 1"),
        ((10, 16, 0), "0 shared frames in segments of 16"),
        ((10, 16, 16), "give 1 to 15"),
        ((10, 16, 1, "stretch"), "choose shorten, overlap, pad"),
    ],
)
def test_bad_values_are_named(values, words):
    with pytest.raises(InputError, match=words):
        plan_segments(*values)


def test_cross_fade():
    before, after = torch.zeros(4, 1, 1, 3), torch.ones(4, 1, 1, 3)
    np.testing.assert_allclose(join_shared(before, after)[:, 0, 0, 0], [0, 0.25, 0.5, 0.75])
    assert torch.equal(join_shared(before[:1], after[:1]), before[:1])
