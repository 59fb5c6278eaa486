"""One time-boxed, resumable run that trains the networks of the world (`python -m models.tinybooru.train networks`).

For each training seed: a text encoder (learnt with a small UNet, then frozen), the main UNet, a smaller, less trained
one, the main flow transformer and a smaller one. Every step's batch comes from (seed, step), its noise from (seed,
step, network) alone. What is finished is written at once; a run that was stopped continues from --state.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel

from models.tinybooru.networks.captions import CaptionTable
from models.tinybooru.networks.families import (
    CANVAS,
    TEXT_WIDTH,
    FamilyRecipe,
    alphas_on,
    build_network,
    network_loss,
    noise_levels,
)
from models.tinybooru.networks.graphed import WARMUP_STEPS, GraphedTraining, Tensors
from models.tinybooru.networks.text_encoder import build_text_encoder, encode_text, text_encoder_digest
from models.tinybooru.precision import has_bfloat16
from models.tinybooru.tokenizer import CONTEXT_LENGTH, world_tokenizer
from models.tinybooru.world import World
from pipeline.storage.files import fingerprint, write_atomically

# Shares of each batch that are images with these tags, never without them in the caption: what the world shows seldom.
FOCUS = {"bad anatomy": 0.1, "glasses": 0.05, "sunglasses": 0.05, "extra digit": 0.06, "waving": 0.1}
# Hands are learnt last: where a run is short, its later batches show more of them.
LATE_FOCUS = {"bad anatomy": 0.08, "glasses": 0.05, "sunglasses": 0.05, "extra digit": 0.07, "waving": 0.35}

UNET = FamilyRecipe("unet", "main", (32, 48, 64), 2, 1.5e-3)
UNET_SMALL = FamilyRecipe("unet", "small", (16, 32, 48), 2, 1.5e-3)
FLOW = FamilyRecipe("flow", "main", (96, 4, 3), 4, 1.5e-3)
FLOW_SMALL = FamilyRecipe("flow", "small", (64, 3, 2), 4, 1.5e-3)


@dataclass(frozen=True)
class Sizes:
    """What a run trains: steps, snapshots and sizes."""

    images: int
    held_out: int
    batch: int
    text_steps: int
    steps: int
    small_steps: int
    stages: tuple[int, ...]
    small_stages: tuple[int, ...]
    seeds: int
    decay: float = 0.2  # share of the steps over which the rate falls to zero at the end (main networks)
    late_focus_from: int | None = None  # the step from which batches follow LATE_FOCUS


GPU = Sizes(60000, 4096, 256, 600, 6000, 1500, (300, 600, 1200, 2400, 4500), (500,), 3)
# What two cores train in some three hours a seed.
CPU = Sizes(40000, 4096, 64, 1500, 5000, 1500, (500, 1000, 2000, 3500), (500,), 3, late_focus_from=3100)
TINY = Sizes(96, 32, 4, 2, 4, 2, (2,), (1,), 2)
SIZES = {"gpu": GPU, "cpu": CPU, "tiny": TINY}


class SeedInputs:
    """The static inputs of one training seed, shared by its networks: rows, token ids, text embeddings."""

    def __init__(self, seed: int, run: "Run"):
        self.seed, self.run = seed, run
        batch, device = run.sizes.batch, run.device
        self.rows = torch.zeros(batch, dtype=torch.long, device=device)
        self.ids = torch.full((batch, CONTEXT_LENGTH), run.table.end, dtype=torch.long, device=device)
        self.uniform = torch.full((batch,), 0.5, device=device)
        self.noise = torch.zeros(batch, 3, CANVAS, CANVAS, device=device)
        self.context = torch.zeros(batch, CONTEXT_LENGTH, TEXT_WIDTH, device=device)
        self.pooled = torch.zeros(batch, TEXT_WIDTH, device=device)
        self.generator = torch.Generator(device)
        self.stream: Any = (
            torch.cuda.Stream() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        )

    def fill(self, step: int, salt: int = 0) -> None:
        """The batch of a step; `salt` tells the phases of a run apart."""
        batch = self.run.sizes.batch
        rng = np.random.default_rng([self.seed, step, salt])
        rows = rng.integers(len(self.run.world.train), size=batch)
        at = 0
        late = self.run.sizes.late_focus_from
        focus = LATE_FOCUS if salt == 0 and late is not None and step >= late else FOCUS
        for tag, share in focus.items():
            for _ in range(round(share * batch)):
                rows[at] = rng.choice(self.run.table.rows_of[tag])
                at += 1
        ids = self.run.table.captions(rows, rng, never_empty=at)
        for target, source in ((self.rows, rows), (self.ids, ids), (self.uniform, rng.random(batch, np.float32))):
            tensor = torch.from_numpy(source)
            if self.run.device.type == "cuda":
                tensor = tensor.pin_memory()
            target.copy_(tensor, non_blocking=True)

    def make_noise(self, step: int, network: int) -> None:
        """The noise of a step of one network."""
        self.generator.manual_seed((self.seed * 1_000_003 + step) * 16 + network)
        self.noise.normal_(generator=self.generator)

    def read(self, text_encoder: CLIPTextModel) -> None:
        """Text embeddings of the batch's captions."""
        with torch.no_grad():
            context, pooled = encode_text(text_encoder, self.ids)
            self.context.copy_(context)
            self.pooled.copy_(pooled)


class Run:
    """The whole run on one device."""

    def __init__(
        self, sizes: Sizes, world: World, device: torch.device, state: Path, deadline: float, compiled: bool = False
    ):
        self.sizes, self.world, self.device, self.state = sizes, world, device, state
        self.deadline, self.compiled = deadline, compiled
        self.half = has_bfloat16(device)
        self.began = time.monotonic()
        self.tokenizer = world_tokenizer(state, [", ".join(p.tags) for p in world.train_plans])
        self.table = CaptionTable([p.tags for p in world.train_plans], self.tokenizer)
        held_out_tags = [p.tags for p in world.held_out_plans]
        self.held_out_ids = torch.from_numpy(CaptionTable(held_out_tags, self.tokenizer).spell(
            CaptionTable(held_out_tags, self.tokenizer).table)).to(device)  # fmt: skip
        self.pixels = world.train.to(device)
        self.held_out = world.held_out.to(device)
        self.alphas = alphas_on(device)
        self.log: list[dict[str, Any]] = []
        self.hosts: dict[str, nn.Module] = {}
        self.forwards: dict[str, Any] = {}
        self.mark = fingerprint(["world", len(world.train), self.tokenizer.get_vocab(), world.train_plans[-1].index])

    def say(self, **what: Any) -> None:
        entry = {"seconds": round(time.monotonic() - self.began, 1), **what}
        self.log.append(entry)
        print(json.dumps(entry), flush=True)

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def host(self, recipe: FamilyRecipe) -> nn.Module:
        """The module that networks of a recipe share; their weights are put into it."""
        key = f"{recipe.family}-{recipe.name}"
        if key not in self.hosts:
            self.hosts[key] = build_network(recipe).to(self.device)
            forward = torch.compile(self.hosts[key]) if self.compiled else self.hosts[key]
            self.forwards[key] = forward
        return self.hosts[key]

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def loss_of(self, recipe: FamilyRecipe, inputs: SeedInputs, text_encoder: CLIPTextModel | None = None) -> Any:
        self.host(recipe)
        forward = self.forwards[f"{recipe.family}-{recipe.name}"]

        def loss() -> torch.Tensor:
            x0 = self.pixels[inputs.rows].float() / 127.5 - 1
            level = noise_levels(recipe.family, inputs.uniform)
            with self.autocast():
                context, pooled = inputs.context, inputs.pooled
                if text_encoder is not None:
                    context, pooled = encode_text(text_encoder, inputs.ids)
                return network_loss(recipe, forward, x0, inputs.noise, level, context, pooled, self.alphas)

        return loss

    def training(
        self, recipe: FamilyRecipe, inputs: SeedInputs, name: str, text: Tensors | None = None, reads: str = ""
    ) -> GraphedTraining:
        """A training of a recipe; `text`: initial weights of a text encoder to be learnt with it; `reads`: digest of
        the frozen one otherwise."""
        host = self.host(recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.seed * 7919 + 17)
            fresh = build_network(recipe)
        initial = {f"net.{n}": p.detach().to(self.device) for n, p in fresh.named_parameters()}
        hosts: dict[str, nn.Module] = {"net": host}
        encoder = None
        if text is not None:
            encoder = self.hosts["text"]
            hosts["text"] = encoder
            initial |= text
        identity = {"recipe": json.loads(json.dumps(asdict(recipe))), "seed": inputs.seed, "world": self.mark,
                    "text_encoder": reads}  # fmt: skip
        loss = self.loss_of(recipe, inputs, encoder)
        made = GraphedTraining(name, hosts, initial, loss, recipe.learning_rate, self.device, identity)
        made.record()
        made.resume(self.state / f"{name}.safetensors")
        return made

    @torch.no_grad()
    def held_out_loss(self, recipe: FamilyRecipe, weights: Tensors, text_encoder: CLIPTextModel) -> float:
        """Loss of weights on held-out images with full captions, fixed noise and levels."""
        host = self.host(recipe)
        load_weights(host, weights)
        generator = torch.Generator().manual_seed(0)
        losses = []
        count = min(1024, len(self.held_out))
        for start in range(0, count, 256):
            x0 = self.held_out[start : start + 256].float() / 127.5 - 1
            level = noise_levels(recipe.family, torch.rand(len(x0), generator=generator).to(self.device))
            noise = torch.randn(x0.shape, generator=generator).to(self.device)
            with self.autocast():
                context, pooled = encode_text(text_encoder, self.held_out_ids[start : start + 256])
                losses.append(network_loss(recipe, host, x0, noise, level, context, pooled, self.alphas).item())
        return sum(losses) / len(losses)

    def rate(self, step: int, steps: int, decay: float) -> float:
        """Share of the learning rate: warm-up, plateau, fall."""
        falling = (steps - step) / max(1.0, decay * steps) if decay else 1.0
        return min(1.0, (step + 1) / WARMUP_STEPS, falling)

    def on(self, inputs: SeedInputs) -> Any:
        return torch.cuda.stream(inputs.stream) if inputs.stream is not None else _Here()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def learn_text(self, seeds: Sequence[SeedInputs]) -> list[CLIPTextModel]:
        """The frozen text encoders of the seeds."""
        encoders, trainings = [], []
        torch.manual_seed(0)
        self.hosts["text"] = build_text_encoder(self.tokenizer, TEXT_WIDTH).to(self.device)
        for inputs in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(inputs.seed * 104729 + 5)
                fresh = build_text_encoder(self.tokenizer, TEXT_WIDTH)
            text = {f"text.{n}": p.detach().to(self.device) for n, p in fresh.named_parameters()}
            recipe = replace(UNET_SMALL, name="text")
            trainings.append(self.training(recipe, inputs, f"text-{inputs.seed}", text))
            encoders.append(fresh.to(self.device).eval().requires_grad_(False))
        self.wait()
        # Two runs may share the text encoders of a seed: a finished one is read and not written again.
        already = [training.step >= self.sizes.text_steps for training in trainings]
        for step in range(min(t.step for t in trainings), self.sizes.text_steps):
            for inputs, training in zip(seeds, trainings, strict=True):
                if training.step > step:
                    continue
                with self.on(inputs):
                    inputs.fill(step, salt=1)
                    inputs.make_noise(step, 15)
                    training.advance(self.rate(step, self.sizes.text_steps, 0.0))
            if (step + 1) % 100 == 0:
                self.wait()
                self.say(text=step + 1, loss=[round(t.take_loss(100), 4) for t in trainings])
        self.wait()
        for inputs, training, encoder, done in zip(seeds, trainings, encoders, already, strict=True):
            if not done:
                training.save(self.state / f"text-{inputs.seed}.safetensors")
            weights = {n.removeprefix("text."): t for n, t in training.average.items() if n.startswith("text.")}
            encoder.load_state_dict({n: t.half().float() for n, t in weights.items()}, strict=False)
            if not done:
                state = {n: t for n, t in encoder.state_dict().items() if t.is_floating_point()}
                self.keep(f"text-{inputs.seed}", state)
        return encoders

    def keep(self, name: str, tensors: Tensors) -> None:
        """Write half-precision weights as a snapshot."""
        folder = self.state / "snapshots"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.safetensors"
        temporary = path.with_name(f".{path.name}.tmp")
        save_file({n: t.detach().half().cpu().contiguous() for n, t in tensors.items()}, temporary)
        os.replace(temporary, path)

    def train(self, until: int | None = None, chosen: Sequence[int] | None = None, only: str = "") -> None:
        """Everything (to step `until`): text encoders, then all networks side by side; or `chosen` seeds and, `only`,
        the networks whose names begin so ("text": none)."""
        seeds = [SeedInputs(seed, self) for seed in (range(self.sizes.seeds) if chosen is None else chosen)]
        encoders = self.learn_text(seeds)
        trainings: list[tuple[SeedInputs, int, FamilyRecipe, GraphedTraining]] = []
        every = (UNET, FLOW, UNET_SMALL, FLOW_SMALL)
        recipes = [r for r in every if f"{r.family}-{r.name}".startswith(only)]
        encoder_of = {inputs.seed: encoder for inputs, encoder in zip(seeds, encoders, strict=True)}
        if not recipes:
            return
        for inputs, encoder in zip(seeds, encoders, strict=True):
            for recipe in recipes:
                k = every.index(recipe)
                name = f"{recipe.family}-{recipe.name}-{inputs.seed}"
                made = self.training(recipe, inputs, name, reads=text_encoder_digest(encoder))
                trainings.append((inputs, k, recipe, made))
        self.wait()
        self.say(recorded=len(trainings), parameters={r.family + "-" + r.name: count(self.host(r)) for r in recipes})
        first = min(t.step for *_, t in trainings)
        since = first
        saved = time.monotonic()
        for step in range(first, self.sizes.steps if until is None else min(until, self.sizes.steps)):
            for inputs, encoder in zip(seeds, encoders, strict=True):
                mine = [entry for entry in trainings if entry[0] is inputs]
                active = [entry for entry in mine if entry[3].step == step and step < self.end_of(entry[2])]
                if not active:
                    continue
                with self.on(inputs):
                    inputs.fill(step)
                    inputs.read(encoder)
                    for _, k, recipe, made in active:
                        inputs.make_noise(step, k)
                        decay = self.sizes.decay if recipe.name == "main" else 0.0
                        made.advance(self.rate(step, self.end_of(recipe), decay))
            done = step + 1
            if done % 20 == 0 and self.device.type == "cuda":
                self.wait()  # bounds how far the host runs ahead, and keeps the clock honest
            if done % 200 == 0:
                self.wait()
                since_last, since = done - since, done
                self.say(step=done, loss={t.name: round(t.take_loss(since_last), 4) for *_, t in trainings
                                          if t.step == done})  # fmt: skip
            stop = self.left() < 0 or done == until
            self.snapshots(done, stop, trainings, encoder_of)
            if stop:
                self.say(stopped=done)
                break
            if time.monotonic() - saved > 150:
                self.save(trainings)
                saved = time.monotonic()
        self.wait()
        self.save(trainings)

    def end_of(self, recipe: FamilyRecipe) -> int:
        return self.sizes.steps if recipe.name == "main" else self.sizes.small_steps

    def save(self, trainings: Sequence[tuple[SeedInputs, int, FamilyRecipe, GraphedTraining]]) -> None:
        for *_, made in trainings:
            made.save(self.state / f"{made.name}.safetensors")
        self.write_log()

    def write_log(self) -> None:
        write_atomically(self.state / "log.json", (json.dumps(self.log, indent=0) + "\n").encode())

    def snapshots(
        self,
        done: int,
        stop: bool,
        trainings: Sequence[tuple[SeedInputs, int, FamilyRecipe, GraphedTraining]],
        encoders: Mapping[int, CLIPTextModel],
    ) -> None:
        """Keep the averages of the networks that have reached a stage, and their held-out losses."""
        losses = {}
        for inputs, _, recipe, made in trainings:
            stages = self.sizes.stages if recipe.name == "main" else self.sizes.small_stages
            if made.step == done and (done in stages or done == self.end_of(recipe) or stop):
                self.wait()
                name = f"{made.name}-{done}"
                self.keep(name, {n.removeprefix("net."): t for n, t in made.average.items()})
                losses[name] = round(self.held_out_loss(recipe, unprefixed(made.average), encoders[inputs.seed]), 4)
                kept = {**held_out_losses(self.state, made.name), done: losses[name]}
                write_atomically(losses_file(self.state, made.name), json.dumps(kept).encode())
        if losses:
            self.say(held_out=losses)
            self.write_log()


def losses_file(state: Path, name: str) -> Path:
    """Where a training keeps its held-out losses."""
    return state / f"{name}.losses.json"


def held_out_losses(state: Path, name: str) -> dict[int, float]:
    """Held-out losses of a training's averaged weights, by step."""
    path = losses_file(state, name)
    kept: dict[str, float] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {int(step): loss for step, loss in kept.items()}


class _Here:
    """No stream: a CPU does one thing after another."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def unprefixed(tensors: Tensors) -> Tensors:
    """Weights of the network without their prefix."""
    return {n.removeprefix("net."): t for n, t in tensors.items() if n.startswith("net.")}


def load_weights(host: nn.Module, weights: Tensors) -> None:
    """Give a module its own copy of weights."""
    for n, p in host.named_parameters():
        p.data = weights[n].detach().to(p.device, torch.float32).clone()


def count(network: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in network.parameters())


def snapshot_weights(state: Path, name: str) -> Tensors:
    """Weights of a snapshot, by name."""
    weights: Tensors = load_file(state / "snapshots" / f"{name}.safetensors")
    return weights
