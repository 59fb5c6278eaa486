"""Jobs and their tasks: what every executor loads once per worker and does again and again."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch

from pipeline.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
# Loads what the tasks need onto a device. It travels to other processes, so it is a function of a module, or a
# functools.partial of one.
Job = Callable[[torch.device], Callable[[Task], Result]]


class LazyJob:
    """A job that is loaded by its first task, whose error then reaches the caller as any task's does."""

    def __init__(self, job: Job[Any, Any], device: torch.device):
        self._job, self._device = job, device
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, task: Any) -> Any:
        if self._work is None:
            self._work = self._job(self._device)
        return self._work(task)


class Numbered(Generic[Task]):
    """Tasks with their numbers, one after another; those that were lost come first, and not more than so often."""

    def __init__(self, tasks: Iterable[Task], retries: int):
        self._new, self._again = enumerate(tasks), deque[tuple[int, Task]]()
        self._retries, self._begun_again = retries, Counter[int]()

    def take(self) -> tuple[int, Task] | None:
        """The next one; None where there is none left."""
        return self._again.popleft() if self._again else next(self._new, None)

    def put_back(self, number: int, task: Task) -> None:
        """Have a task begun again. Raises InputError where it has been too often."""
        self._begun_again[number] += 1
        if self._begun_again[number] > self._retries:
            raise InputError(
                f"workers died {self._begun_again[number]} times over the same task (executor.retries is "
                f"{self._retries}), for instance for lack of memory; what is finished is kept: continue with fewer "
                "workers, or a smaller generate.batch"
            )
        self._again.append((number, task))
