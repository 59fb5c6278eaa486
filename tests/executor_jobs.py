"""Jobs for the tests of executors, in a module that a new process imports quickly."""

import os
import signal

from pipeline.errors import InputError


def squaring(device):
    return lambda number: number**2


def refusing(device):
    def refuse(number):
        raise InputError(f"{number} is odd; take another") if number % 2 else ValueError("even")

    return refuse


def dying_at_three(folder, times, device):
    """Kills its own process over task 3, the first few `times`."""

    def work(number):
        deaths = folder / "deaths"
        if number == 3 and (not deaths.exists() or deaths.stat().st_size < times):
            with deaths.open("ab") as file:
                file.write(b".")
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    return work
