"""A termination that lets the work in hand be finished first."""

import signal
import sys
from types import FrameType, TracebackType


class Termination:
    """While this is entered, the first SIGTERM only asks for an end; a second one ends the process at once.

    Only a process's main thread can be asked, which is where stages run.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Termination":
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.requested:
            sys.exit(128 + number)
        self.requested = True

    def leave(self, finished: str) -> None:
        """End with 143, saying what was `finished`, where that was asked for."""
        if self.requested:
            print(f"terminated after {finished}; the same command continues", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
