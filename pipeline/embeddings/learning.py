"""The training loop of an embedding: rounds of noisy images, a checkpoint after each, resumed where it stopped."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pipeline.embeddings.learned_vectors import LearnedVectors
from pipeline.embeddings.noisy_images import NoisyImages
from pipeline.errors import InputError
from pipeline.networks.denoisers.unet import DenoisingNetwork
from pipeline.storage.files import write_atomically
from pipeline.storage.tensor_file import encode_tensors, read_tensors

# Adam's, with a shorter memory of squares than its default: a run has some hundred steps.
_BETAS = (0.9, 0.99)


@dataclass
class Learning:
    """One run that learns vectors: `rounds` rounds of noisy images, each seen once, `batch` of them a step.

    `identity` is all that the result depends on; a checkpoint of another one is refused. Every random number follows
    from `seed` and the number of the round, so a resumed run equals one that was never stopped. `losses` are the mean
    losses of the rounds so far.
    """

    vectors: LearnedVectors
    network: DenoisingNetwork
    rounds: int
    batch: int
    rate: float
    seed: int
    identity: Mapping[str, Any]
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._optimiser = torch.optim.Adam(self.vectors.vectors, lr=self.rate, betas=_BETAS)

    def run(self, images: Callable[[int], NoisyImages], checkpoint: Path, until: int | None = None) -> None:
        """Learn from the `images` of every round that is not done, up to round `until` (default: all).

        Raises InputError where the checkpoint is damaged or of another run, and where vectors are no longer finite.
        """
        self._resume(checkpoint)
        with tqdm(
            total=self.rounds, initial=len(self.losses), desc="learn", unit="round", smoothing=0.1, disable=None
        ) as bar:
            for number in range(len(self.losses), self.rounds if until is None else until):
                loss = self._round(number, images(number))
                if not all(own.isfinite().all() for own in self.vectors.vectors):
                    raise InputError(
                        f"the vectors of round {number} are not finite numbers (loss {loss:g}); lower --rate "
                        f"({self.rate:g}), take model.loading.dtype=float32, and delete {checkpoint}"
                    )
                self.losses.append(loss)
                self._save(checkpoint)
                bar.set_postfix_str(f"loss {loss:.4f}")
                bar.update()

    def _round(self, number: int, images: NoisyImages) -> float:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(len(images), generator=generator).to(self.network.device)
        steps = [order[first : first + self.batch] for first in range(0, len(order), self.batch)]
        total = 0.0
        for k, rows in enumerate(steps):
            progress = (number + k / len(steps)) / self.rounds
            for group in self._optimiser.param_groups:
                group["lr"] = self.rate * (1 + math.cos(math.pi * progress)) / 2
            losses = images.losses(rows, images.predicted(self.network, rows, self.vectors.told(images.chunks)))
            self._optimiser.zero_grad()
            losses.mean().backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total += float(losses.detach().sum())
        return total / len(images)

    def _save(self, path: Path) -> None:
        tensors: dict[str, torch.Tensor] = {}
        for k, own in enumerate(self.vectors.vectors):
            state = self._optimiser.state[own]
            tensors |= {f"vectors.{k}": own, f"first.{k}": state["exp_avg"], f"second.{k}": state["exp_avg_sq"]}
            tensors[f"steps.{k}"] = state["step"].reshape(1)
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_atomically(path, encode_tensors(kept, {"identity": dict(self.identity), "losses": self.losses}))

    def _resume(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            tensors, known = read_tensors(path)
        except InputError:
            raise InputError(f"checkpoint {path} is damaged; delete it to learn from the start") from None
        theirs = known["identity"]
        if changed := sorted(key for key in {*theirs, *self.identity} if theirs.get(key) != self.identity.get(key)):
            raise InputError(
                f"checkpoint {path} is of a run with another {', '.join(changed)}; delete it to learn from the start, "
                "or take another name"
            )
        with torch.no_grad():
            for k, own in enumerate(self.vectors.vectors):
                own.copy_(tensors[f"vectors.{k}"])
                self._optimiser.state[own] = {
                    "step": tensors[f"steps.{k}"].reshape(()),
                    "exp_avg": tensors[f"first.{k}"].to(own),
                    "exp_avg_sq": tensors[f"second.{k}"].to(own),
                }
        self.losses = list(known["losses"])
