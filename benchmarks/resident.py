"""The resident memory of this process at its worst moment."""

from __future__ import annotations

import threading

from unianimate_core.optional import require


class WorstMemory:
    """Watches the resident memory of this process; that of the loading before does not count, as a file's pages do."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._process = require("psutil", "the extra `standalone` of this package").Process()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.megabytes = max(self.megabytes, self._process.memory_info().rss / 2**20)

    def __enter__(self) -> WorstMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
