"""Signals: a request to end, heeded where the training can save itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


class Interrupted(Exception):  # noqa: N818
    """A signal ended the training, whose state is saved.

    Attributes:
        signal: The signal's number.
    """

    def __init__(self, number: int):
        super().__init__(f"Ended by {signal.Signals(number).name}.")
        self.signal = number


class Signals:
    """A context in which SIGTERM and SIGINT are kept until `heed` is called.

    A second one of the kind does what it would have done without us. Outside of the main thread,
    where Python hears no signals, the context does nothing. Where several processes train
    together, all heed what one of them received.

    Args:
        agree: A function from this process's signal, or 0, to that of all.

    Example:
        >>> with Signals() as signals:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     signals.heed()
        Traceback (most recent call last):
        ...
        tfbio.training.signals.Interrupted: Ended by SIGTERM.
    """

    def __init__(self, agree: Callable[[int], int] = lambda number: number):
        self._agree = agree
        self._received = 0
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._keep)
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _keep(self, number, frame):
        self._received = number
        signal.signal(number, self._before[number])

    def heed(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if received := self._agree(int(self._received)):
            raise Interrupted(received)
