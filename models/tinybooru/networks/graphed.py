"""One training whose whole step (forward, backward, Muon and AdamW, average) is a CUDA graph where there is a GPU.

The networks are small: launched one by one, their kernels would leave a large GPU idle. A graph is launched as one, and
several trainings run side by side, each on a stream. On a CPU the same step runs as it is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.tinybooru.checkpoint import load_checkpoint, save_checkpoint
from models.tinybooru.networks.muon import orthogonalise, update_scale
from pipeline.errors import InputError

BETAS, EPSILON, MOMENTUM = (0.9, 0.99), 1e-8, 0.95
AVERAGE = 0.998
WARMUP_STEPS = 100
# Embedding tables and the ends of a network are looked up or read out, not multiplied through.
ENDS = ("conv_in", "conv_out", "embed", "position", "proj_out")

Tensors = dict[str, torch.Tensor]


class GraphedTraining:
    """Trains copies of the weights of `hosts` (modules by prefix), which other trainings may share.

    `loss` computes the loss of the static inputs that the caller fills before each step. The weights live here; they
    are put into the hosts as long as a step is recorded or run.
    """

    def __init__(
        self,
        name: str,
        hosts: Mapping[str, nn.Module],
        initial: Tensors,
        loss: Callable[[], torch.Tensor],
        learning_rate: float,
        device: torch.device,
        identity: Mapping[str, Any],
    ):
        """`initial`: weights by prefixed name. `identity`: what its checkpoint must be made of."""
        self.name, self.loss, self.learning_rate, self.device = name, loss, learning_rate, device
        self.identity = dict(identity)
        self.host = {f"{prefix}.{n}": p for prefix, host in hosts.items() for n, p in host.named_parameters()}
        self.weights = {n: initial[n].detach().clone().to(device) for n in self.host}
        self.average = {n: p.clone() for n, p in self.weights.items()}
        self.step = 0
        self.graph: Any = None
        self.trained: list[str] = []
        self.state: Tensors = {}
        # Read by the recorded step; the caller's numbers of the step at hand.
        self.numbers = {n: torch.zeros((), device=device) for n in ("rate", "adam", "root", "keep", "give")}
        self.loss_sum = torch.zeros((), device=device)
        self._initial = initial

    def bind(self, tensors: Tensors) -> None:
        """Put weights into the hosts."""
        for n, p in self.host.items():
            p.data = tensors[n]

    def record(self) -> None:
        """Find out which weights learn, warm up and, on a GPU, record the step. Leaves the weights as they were."""
        self.bind(self.weights)
        self._forget_gradients()
        self.loss().backward()  # type: ignore[no-untyped-call]
        self.trained = [n for n, p in self.host.items() if p.grad is not None]
        matrices = [n for n in self.trained if self.weights[n].ndim >= 2 and not any(end in n for end in ENDS)]
        self.matrices = matrices
        self.others = [n for n in self.trained if n not in set(matrices)]
        self.state = {f"momentum|{n}": torch.zeros_like(self.weights[n]) for n in matrices}
        for kind in ("first", "second"):
            self.state |= {f"{kind}|{n}": torch.zeros_like(self.weights[n]) for n in self.others}
        if self.device.type == "cuda":
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._step()
            torch.cuda.current_stream().wait_stream(stream)
            self._forget_gradients()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._step()
        self._forget_gradients()
        with torch.no_grad():
            for n in self.host:
                self.weights[n].copy_(self._initial[n])
                self.average[n].copy_(self._initial[n])
            for tensor in (*self.state.values(), self.loss_sum):
                tensor.zero_()

    def _forget_gradients(self) -> None:
        for p in self.host.values():
            p.grad = None

    def advance(self, rate: float) -> None:
        """One step at a share `rate` of the learning rate; the static inputs hold its batch."""
        at = self.step
        keep = min(AVERAGE, (1 + at) / (10 + at))  # a long average over a short past would remember the beginning
        learning_rate = self.learning_rate * rate
        for name, value in {
            "rate": learning_rate,
            "adam": learning_rate / (1 - BETAS[0] ** (at + 1)),
            "root": (1 - BETAS[1] ** (at + 1)) ** -0.5,
            "keep": keep,
            "give": 1 - keep,
        }.items():
            self.numbers[name].fill_(value)
        if self.graph is not None:
            self.graph.replay()
        else:
            self.bind(self.weights)
            self._step()
            self._forget_gradients()
        self.step += 1

    def _step(self) -> None:
        self._forget_gradients()
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.loss_sum.add_(loss.detach())
            gradient: Tensors = {}
            for n in self.trained:
                found = self.host[n].grad
                assert found is not None
                gradient[n] = found
            norm = torch.stack(torch._foreach_norm(list(gradient.values()))).norm()
            torch._foreach_mul_(list(gradient.values()), (1 / (norm + 1e-6)).clamp(max=1.0))
            self._adam(gradient)
            self._muon(gradient)
            averages, weights = list(self.average.values()), list(self.weights.values())
            torch._foreach_mul_(averages, self.numbers["keep"])
            torch._foreach_add_(averages, torch._foreach_mul(weights, self.numbers["give"]))

    def _adam(self, gradient: Tensors) -> None:
        if not self.others:
            return
        gradients = [gradient[n] for n in self.others]
        first = [self.state[f"first|{n}"] for n in self.others]
        second = [self.state[f"second|{n}"] for n in self.others]
        torch._foreach_lerp_(first, gradients, 1 - BETAS[0])
        torch._foreach_mul_(second, BETAS[1])
        torch._foreach_addcmul_(second, gradients, gradients, 1 - BETAS[1])
        denominator = list(torch._foreach_sqrt(second))
        torch._foreach_mul_(denominator, self.numbers["root"])
        torch._foreach_add_(denominator, EPSILON)
        update = list(torch._foreach_div(first, denominator))
        torch._foreach_mul_(update, self.numbers["adam"])
        torch._foreach_sub_([self.weights[n] for n in self.others], update)

    def _muon(self, gradient: Tensors) -> None:
        momenta = [self.state[f"momentum|{n}"] for n in self.matrices]
        gradients = [gradient[n] for n in self.matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        nesterov = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        alike: dict[tuple[int, ...], list[int]] = {}
        flat = [u.reshape(len(u), -1) for u in nesterov]
        for k, update in enumerate(flat):
            alike.setdefault(tuple(update.shape), []).append(k)
        for shape, places in alike.items():
            orthogonal = orthogonalise(torch.stack([flat[k] for k in places]))
            orthogonal = orthogonal * (self.numbers["rate"] * update_scale(shape))
            targets = [self.weights[self.matrices[k]] for k in places]
            torch._foreach_sub_(targets, [u.view(t.shape) for u, t in zip(orthogonal.unbind(), targets, strict=True)])

    def take_loss(self, steps: int) -> float:
        """Mean loss since the last call, over `steps` steps (waits for the GPU)."""
        mean = self.loss_sum.item() / max(1, steps)
        self.loss_sum.zero_()
        return mean

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs."""
        tensors = {f"weight.{n}": t for n, t in self.weights.items()}
        tensors |= {f"average.{n}": t for n, t in self.average.items()}
        tensors |= {f"state.{n}": t for n, t in self.state.items()}
        save_checkpoint(path, {n: t.cpu() for n, t in tensors.items()}, {"step": self.step, **self.identity})

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint, if there is one. Raises InputError where it is damaged or of something else."""
        if not path.exists():
            return
        tensors, state = load_checkpoint(path)
        step = state.pop("step")
        if changed := sorted(k for k in {*state, *self.identity} if state.get(k) != self.identity.get(k)):
            raise InputError(
                f"checkpoint {path} was made with another {', '.join(changed)}; delete it to train from the start"
            )
        with torch.no_grad():
            for kind, own in (("weight", self.weights), ("average", self.average), ("state", self.state)):
                for n, t in own.items():
                    t.copy_(tensors[f"{kind}.{n}"].reshape(t.shape))
        self.step = step
