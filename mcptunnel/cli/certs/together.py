"""Many blocking jobs at once, none of which is waited for longer than somebody wants to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

__all__ = ["all_at_once"]

T = TypeVar("T")

_THREADS: Final = 16


def all_at_once(jobs: Sequence[Callable[[], T]], seconds: float) -> list[T | Exception | None]:
    """Run blocking ``jobs`` side by side, at most sixteen at a time.

    Returns:
        What each returned or raised, in their order; None for one that was not done after ``seconds``. It is left
        behind, and does not keep the process alive.
    """
    results: list[T | Exception | None] = [None] * len(jobs)
    waiting = iter(range(len(jobs)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            try:
                results[number] = jobs[number]()
            except Exception as error:
                results[number] = error

    until = time.monotonic() + seconds
    threads = [threading.Thread(target=work, daemon=True) for _ in jobs[:_THREADS]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(results)
