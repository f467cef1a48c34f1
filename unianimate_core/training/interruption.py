"""Stopping a run in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a scheduler's SIGTERM sets; a second one ends the process at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _: Any) -> None:
        event.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts(_: int) -> None:
    """Let a loader's worker work on after Ctrl-C, which reaches it too; the main process ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
