"""Errors that a user can mend, and how a stage ends."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from pipeline.experiment import restore_params

# What the machine refuses to write, and a person can change.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
# torch has a type for what its own allocator of a GPU's memory cannot give; the others have nothing but a text.
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class InputError(Exception):
    """Bad input. One line names the key or file, the value, and the fix.

    What it quotes may be anybody's text, so whatever steers a terminal is escaped here, wherever it is shown.
    """

    def __init__(self, message: str = ""):
        super().__init__(message if message.isprintable() else printable(message))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, a GPU's or this machine's, was too small."""
    import torch  # slow, and who computes has it

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def printable(text: str) -> str:
    """One line that shows a text: what other people wrote shall not steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage; the exit code is 0, or 2 with one line on standard error for an InputError or a disk that refuses.

    A signal ends it with 128 and the signal's number, as shells count: 130 for Ctrl-C, 143 for a termination, after
    every `finally`. What was finished before is kept. A failure within a DVC experiment leaves params.yaml as it was
    before the experiment.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _run(stage)
    except BaseException as error:
        failed = not isinstance(error, SystemExit) or error.code not in (None, 0)
        if failed and restore_params():
            print("params.yaml is again what it was before the experiment", file=sys.stderr)
        raise


def _run(stage: Callable[[], None]) -> None:
    try:
        stage()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read the output has enough of it, as `head` does; what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        place = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror}{place}; what was finished is kept, the same command goes on", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, the same command goes on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _terminate(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
