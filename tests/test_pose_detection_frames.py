"""Videos: order, exceptions, how far ahead frames are read, and what is left behind."""

import threading
import time

import numpy as np
import pytest
from pose_networks import DETECTOR, KEYPOINTS, STUBS

from unianimate_core.errors import InputError
from unianimate_core.pose.detection import PoseDetector
from unianimate_core.pose.detection.read_ahead import map_read_ahead

PICTURE = np.load(STUBS / "dwpose.npz")["0.image_rgb"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def detector():
    return PoseDetector(DETECTOR, KEYPOINTS)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("pose-")]


def double(items):
    return [2 * item for item in items]


def test_frames_give_what_pictures_give_in_order(detector):
    frames = [PICTURE[:200, 40 * n : 200 + 40 * n + 7 * n] for n in range(7)]
    found = list(detector.detect_frames(iter(frames)))
    assert len(found) == 7
    for people, frame in zip(found, frames, strict=True):
        for a, b in zip(people, detector.detect(frame), strict=True):
            np.testing.assert_array_equal(a, b)


def test_no_frames_give_nothing(detector):
    assert list(detector.detect_frames([])) == []


@pytest.mark.parametrize("good", [0, 1, 2, 3, 4])
def test_a_bad_frame_is_named_after_all_before_it_were_given(detector, good):
    small = PICTURE[:40, :40]
    found = []
    with pytest.raises(InputError, match=f"Frame {good} is float32"):
        found.extend(detector.detect_frames([small] * good + [small.astype(np.float32), small]))
    # extend keeps what came before the exception
    assert len(found) == good


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_exceptions_of_the_reader_in_their_place(count, workers):
    def items():
        yield from range(count)
        raise OSError("the disk is gone")

    assert list(map_read_ahead(double, range(count), 3, workers)) == [2 * n for n in range(count)]
    given = []
    with pytest.raises(OSError, match="the disk is gone"):
        given.extend(map_read_ahead(double, items(), 3, workers))
    assert given == [2 * n for n in range(count)]


def test_an_exception_of_the_work_comes_in_its_place():
    def work(items):
        if 4 in items:
            raise ValueError("four")
        return items

    given = []
    with pytest.raises(ValueError, match="four"):
        given.extend(map_read_ahead(work, range(100), 2, 2))
    assert given == [0, 1, 2, 3]


def test_slow_work_is_overtaken_by_no_result():
    def work(items):
        time.sleep(0.02 if items[0] == 0 else 0)
        return items

    assert list(map_read_ahead(work, range(12), 2, 3)) == list(range(12))


@pytest.mark.parametrize("how", ["close", "drop", "break", "exception"])
def test_an_abandoned_iterator_reads_no_further_and_leaves_no_thread(how):
    """Without end: if it read on, or waited for the end, this test would never finish."""
    read = []

    def items():
        number = 0
        while True:
            read.append(number)
            yield number
            number += 1

    results = map_read_ahead(double, items(), 2, 2)
    assert not read, "nothing starts before the first result is asked for"
    if how == "break":
        for _ in results:
            break
        del results
    elif how == "exception":

        def fail():
            for _ in results:
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        del results
    else:
        assert [next(results), next(results), next(results)] == [0, 2, 4]
        results.close() if how == "close" else None
        del results
    stopped = len(read)
    assert stopped <= 2 * (2 + 3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pose-")]
    time.sleep(0.02)
    assert len(read) == stopped


def test_a_slow_consumer_lets_only_so_many_frames_be_read():
    """Constant memory: of 10,000 items no more than the groups in hand are ever read and not yet given."""
    state = {"read": 0, "most": 0}

    def items():
        for number in range(10_000):
            state["read"] += 1
            yield number

    for given, _ in enumerate(map_read_ahead(double, items(), 4, 2)):
        state["most"] = max(state["most"], state["read"] - given)
    assert state["read"] == 10_000
    assert state["most"] <= 4 * (2 + 2)


def test_reading_and_working_go_on_at_the_same_time():
    """While the second group is worked on, the reader has begun the third: each waits for the other."""
    working, reading = threading.Event(), threading.Event()

    def items():
        yield from range(4)
        assert working.wait(10)
        reading.set()
        yield 4

    def work(group):
        if 2 in group:
            working.set()
            assert reading.wait(10)
        return group

    assert list(map_read_ahead(work, items(), 2, 1)) == list(range(5))


def test_the_reader_is_read_in_one_thread_which_is_not_the_callers():
    threads = set()

    def items():
        for number in range(20):
            threads.add(threading.current_thread())
            yield number

    assert len(list(map_read_ahead(double, items(), 2, 3))) == 20
    assert len(threads) == 1
    assert threads != {threading.main_thread()}
