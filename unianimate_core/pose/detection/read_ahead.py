"""Work on a stream of items in the background, some at a time, while the next are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_read_ahead(
    work: Callable[[list[Item]], list[Result]], items: Iterable[Item], group: int, workers: int
) -> Iterator[Result]:
    """Apply a function to groups of items, and give the results in order.

    One thread reads the items, others work; never more than ``workers + 2`` groups are held. An exception of either
    comes where its item would have come, after the results of all before. When the iterator ends, or is closed or
    dropped, no thread is left.

    Args:
        work: Takes a list of items and gives as many results; runs in several threads at once.
        items: Read in one thread, no further than the groups that are held.
        group: Items at a time.
        workers: Threads that work.
    """
    iterator = iter(items)

    def read() -> tuple[list[Item], Exception | None]:
        read_items: list[Item] = []
        try:
            for item in islice(iterator, group):
                read_items.append(item)
        except Exception as error:
            return read_items, error
        return read_items, None

    def run(reading: Future) -> tuple[list[Result], bool, Exception | None]:
        read_items, error = reading.result()
        return work(read_items) if read_items else [], len(read_items) == group, error

    reader = ThreadPoolExecutor(1, "pose-reading")
    pool = ThreadPoolExecutor(workers, "pose-detection")
    try:
        pending = deque(pool.submit(run, reader.submit(read)) for _ in range(workers + 1))
        more = True
        while more:
            results, more, error = pending.popleft().result()
            if more:
                pending.append(pool.submit(run, reader.submit(read)))
            yield from results
            if error is not None:
                raise error
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        pool.shutdown(cancel_futures=True)
        reader.shutdown()
