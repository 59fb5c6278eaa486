"""What drawing takes of the machine: time, the processor's part in it, and memory at its highest.

MLflow's own monitor samples the whole machine while a run is open. Here the operating system's books of this process
are read instead, so others on the machine do not count, nothing is sampled, and no MLflow need be there.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch


@dataclass(frozen=True)
class Usage:
    """Seconds by the clock and of the processors, and the process's highest memory so far in bytes.

    `cpu_seconds` count each processor, so two busy ones make two a second. `gpu_memory` is what torch had allocated
    at most since the clock began; None without a GPU.
    """

    seconds: float
    cpu_seconds: float
    memory: int
    gpu_memory: int | None


class UsageClock:
    """Begins to count when it is made."""

    def __init__(self, device: torch.device):
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._process = psutil.Process()
        self._cpu = self._cpu_seconds()
        self._started = time.perf_counter()

    def read(self) -> Usage:
        """What was used since the clock was made."""
        on_gpu = self._device.type == "cuda"
        return Usage(
            time.perf_counter() - self._started,
            self._cpu_seconds() - self._cpu,
            _peak_memory(self._process),
            torch.cuda.max_memory_allocated(self._device) if on_gpu else None,
        )

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def _peak_memory(process: psutil.Process) -> int:
    # Not getrusage: a child's ru_maxrss begins with its parent's. Where there is no /proc, what is resident now.
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return int(process.memory_info().rss)
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def device_name(device: torch.device) -> str:
    """How results name a device: the model of a GPU, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
