"""Training of tinybooru's text-to-image networks: the main network with its text encoder, and the guide.

Pixel space, patches as channels (`pixel_unshuffle`): no autoencoder, and with 4x4 patches the UNet works on 16x16
positions. The text encoder learns with the main network until `text_encoder_steps` and is frozen from
there on, so that snapshots of the main network and the guide read the same text embeddings.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.tinybooru.checkpoint import laid_out_like, load_checkpoint, save_checkpoint, tensors_digest
from models.tinybooru.corpus import Corpus, caption
from models.tinybooru.muon import Muon
from models.tinybooru.tokenizer import CONTEXT_LENGTH
from pipeline.errors import InputError
from pipeline.networks.noise_path import from_x0
from pipeline.networks.noise_schedule import timestep_at
from pipeline.storage.files import fingerprint

CANVAS = 64
TRAIN_TIMESTEPS = 1000

# Weights of the squared x0 error as functions of the signal-to-noise ratio. "min_snr" at prediction of noise is the
# plain noise loss cut at SNR 5 (arXiv 2303.09556); "v" is the loss of v prediction, SNR + 1, cut alike.
WEIGHTINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "v": lambda snr: (snr + 1).clamp(max=5.0),
    "min_snr": lambda snr: snr.clamp(max=5.0),
    "x0": torch.ones_like,
}


@dataclass(frozen=True)
class DenoiserRecipe:
    """One training run. `channels`: widths from the finest level to 8x8; rates are for the plateau."""

    name: str
    channels: tuple[int, ...]
    steps: int
    patch: int = 4
    prediction: str = "sample"
    weighting: str = "v"
    beta_schedule: str = "linear"  # diffusers' name for how noise grows over the timesteps
    batch: int = 64
    optimiser: str = "muon"
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.3  # share of the steps over which the rate falls to zero at the end
    ema: float = 0.998
    text_width: int = 128
    text_layers: int = 2
    text_encoder_steps: int = 0  # 0: never trained here
    whole_prompt_dropout: float = 0.1
    tag_dropout: float = 0.1
    seed: int = 0
    # Shares of each batch, from a step on, that are images with these tags, never dropped there. The rest stays as
    # drawn from the corpus, so what follows from any one caption keeps its distribution.
    focus: Mapping[str, float] = field(default_factory=dict)
    focus_from: int = 0
    attention_levels: int = 1  # the coarsest ones


def build_unet(recipe: DenoiserRecipe) -> UNet2DConditionModel:
    """diffusers' text-to-image UNet, attention at its coarsest levels, the pooled text added to the time embedding."""
    coarse = recipe.attention_levels
    fine = len(recipe.channels) - coarse
    return UNet2DConditionModel(
        sample_size=CANVAS // recipe.patch,
        in_channels=3 * recipe.patch**2,
        out_channels=3 * recipe.patch**2,
        layers_per_block=1,
        block_out_channels=recipe.channels,
        down_block_types=(*["DownBlock2D"] * fine, *["CrossAttnDownBlock2D"] * coarse),
        up_block_types=(*["CrossAttnUpBlock2D"] * coarse, *["UpBlock2D"] * fine),
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=recipe.text_width,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int = 2) -> CLIPTextModel:
    """A small CLIP text transformer; without layers it is a table of token and position embeddings."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler(prediction: str = "sample", beta_schedule: str = "linear") -> DDPMScheduler:
    """The noise schedule of training, DDPM's linear betas by default: their last step leaves nothing of the image."""
    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_schedule=beta_schedule,
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type=prediction,
        clip_sample=False,
    )


class DenoiserTraining:
    """One resumable run; every step's images, captions and noise come from (seed, step) alone."""

    def __init__(
        self,
        recipe: DenoiserRecipe,
        tokenizer: CLIPTokenizer,
        corpus: Corpus,
        held_out: Corpus,
        text_encoder: CLIPTextModel | None,
        checkpoint: Path,
        device: torch.device,
        compiled: bool,
        lengths: Sequence[float] = (),
    ):
        """`lengths`: further averages of the weights to keep, beside that of the recipe's `ema`."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.tokenizer, self.corpus, self.held_out = recipe, tokenizer, corpus, held_out
        self.checkpoint, self.device = checkpoint, device
        # What a run learns from; it does not go on with anything else.
        self.learns_from = {
            "vocabulary": fingerprint(tokenizer.get_vocab()),
            "set_of_images": corpus.mark,
            "text_encoder": None if text_encoder is None else text_encoder_digest(text_encoder),
        }
        self.unet = build_unet(recipe).to(device, memory_format=torch.channels_last)
        self.text_encoder = (text_encoder or build_text_encoder(tokenizer, recipe.text_width, recipe.text_layers)).to(
            device
        )
        self.text_encoder.requires_grad_(recipe.text_encoder_steps > 0)
        self.alphas = build_scheduler(beta_schedule=recipe.beta_schedule).alphas_cumprod.to(device)
        self.common_alphas = build_scheduler().alphas_cumprod.to(device)
        self.forward = torch.compile(self.unet) if compiled else self.unet
        self.weights = {f"unet.{n}": p for n, p in self.unet.named_parameters()}
        if recipe.text_encoder_steps:
            self.weights |= {f"text_encoder.{n}": p for n, p in self.text_encoder.named_parameters()}
        self.averages = {
            length: {name: p.detach().clone() for name, p in self.weights.items()} for length in (recipe.ema, *lengths)
        }
        self.optimisers = self._optimisers()
        self.tagged = {tag: np.array([i for i, tags in enumerate(corpus.tags) if tag in tags]) for tag in recipe.focus}
        if unseen := [tag for tag, rows in self.tagged.items() if not len(rows)]:
            raise InputError(f"focus of recipe {recipe.name}: no training image is tagged {', '.join(unseen)}")
        self.focused = [tag for tag, share in recipe.focus.items() for _ in range(round(share * recipe.batch))]
        if len(self.focused) > recipe.batch:
            raise InputError(
                f"focus of recipe {recipe.name}: shares of {sum(recipe.focus.values()):g} in all are "
                f"{len(self.focused)} images of a batch of {recipe.batch}"
            )
        self.step = 0
        self.history: list[dict[str, float]] = []

    @property
    def average(self) -> dict[str, torch.Tensor]:
        """The weights averaged as the recipe says."""
        return self.averages[self.recipe.ema]

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        # Embedding tables and the ends of the network are looked up or read out, not multiplied through.
        ends = ("conv_in", "conv_out", "embed", "position")
        matrices = {
            n: p
            for n, p in self.weights.items()
            if self.recipe.optimiser == "muon" and p.ndim >= 2 and not any(end in n for end in ends)
        }
        rest = [p for n, p in self.weights.items() if n not in matrices]
        lr = self.recipe.learning_rate
        adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        return [adam, *([Muon(list(matrices.values()), lr=lr)] if matrices else [])]

    def embed(self, captions: list[str]) -> torch.Tensor:
        """Text embeddings [B, CONTEXT_LENGTH, width]."""
        ids = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
        ).input_ids
        embeddings: torch.Tensor = self.text_encoder(ids.to(self.device)).last_hidden_state
        return embeddings

    def loss(
        self, pixels: torch.Tensor, captions: list[str], generator: torch.Generator, common: bool = False
    ) -> torch.Tensor:
        """Weighted x0 error of a batch, whatever the network predicts; `pixels` uint8 [B, 3, H, W].

        `common`: with the noise levels and the weighting ("v") by which all recipes are compared, not the recipe's.
        """
        x0 = F.pixel_unshuffle(pixels.to(self.device).float() / 127.5 - 1, self.recipe.patch)
        t = torch.randint(TRAIN_TIMESTEPS, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        timestep = t.to(self.device)
        alpha = (self.common_alphas if common else self.alphas)[timestep].view(-1, 1, 1, 1)
        if common and self.recipe.beta_schedule != "linear":  # there the same noise level is another timestep
            sigmas = ((1 - alpha) / alpha).sqrt().flatten().tolist()
            timestep = torch.tensor([timestep_at(sigma, self.alphas) for sigma in sigmas], device=self.device)
        noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        output = self.forward(noisy, timestep, self.embed(captions)).sample.float()
        snr = alpha / (1 - alpha)
        kind = self.recipe.prediction
        # In the network's own terms: an x0 made of a noise prediction is that prediction's error, much enlarged,
        # minus itself, which single precision does not survive.
        target = from_x0(x0, kind, noisy, alpha.sqrt(), (1 - alpha).sqrt())
        in_x0 = {"sample": torch.ones_like(snr), "epsilon": 1 / snr, "v_prediction": 1 - alpha}[kind]
        weight = WEIGHTINGS["v" if common else self.recipe.weighting](snr)
        error: torch.Tensor = (weight * in_x0 * (output - target).square()).mean()
        return error

    def batch(self, step: int) -> tuple[npt.NDArray[np.int64], list[str], int]:
        """What a step learns from: rows of the corpus [B], their captions, and the seed of its noise."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, step])
        chosen = rng.integers(len(self.corpus), size=recipe.batch)
        captions = [caption(self.corpus.tags[i], rng, recipe.whole_prompt_dropout, recipe.tag_dropout) for i in chosen]
        if step >= recipe.focus_from:
            for k, tag in enumerate(self.focused):
                chosen[k] = rng.choice(self.tagged[tag])
                captions[k] = caption(self.corpus.tags[chosen[k]], rng, 0.0, recipe.tag_dropout, tag)
        return chosen, captions, int(rng.integers(2**62))

    def step_loss(self) -> torch.Tensor:
        """The loss of the step at which the run stands."""
        chosen, captions, seed = self.batch(self.step)
        generator = torch.Generator().manual_seed(seed)
        return self.loss(self.corpus.pixels[torch.from_numpy(chosen)], captions, generator)

    def train_step(self) -> float:
        """One step; returns its loss."""
        recipe = self.recipe
        if self.step == recipe.text_encoder_steps and recipe.text_encoder_steps:
            self._freeze_text_encoder()
        loss = self.step_loss()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for p in self.weights.values() if p.grad is not None], 1.0)
        rate = self.rate(self.step)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for length, average in self.averages.items():
                # A long average over a short past would remember the initial weights.
                keep = min(length, (1 + self.step) / (10 + self.step))
                for name, p in self.weights.items():
                    average[name].lerp_(p, 1 - keep)
        self.step += 1
        return loss.item()

    def rate(self, step: int) -> float:
        """Learning rate at a step: warm-up, plateau, linear fall to zero."""
        r = self.recipe
        falling = (r.steps - step) / max(1, r.decay * r.steps)
        return r.learning_rate * min(1.0, (step + 1) / r.warmup, falling)

    def _freeze_text_encoder(self) -> None:
        """Continue with the averaged text encoder, unchanging."""
        with torch.no_grad():
            for name, p in self.text_encoder.named_parameters():
                p.copy_(self.average[f"text_encoder.{name}"])
        self.text_encoder.requires_grad_(False)

    @torch.no_grad()
    def held_out_loss(self, images: int = 256, captioned: bool = True) -> float:
        """Loss of the current weights on held-out images with full captions (or none) and fixed noise.

        Always with the same weighting and noise levels, so that recipes with others can be compared.
        """
        generator = torch.Generator().manual_seed(0)
        captions = self.held_out.captions() if captioned else [""] * len(self.held_out)
        losses = [
            self.loss(self.held_out.pixels[i : i + 64], captions[i : i + 64], generator, common=True).item()
            for i in range(0, min(images, len(self.held_out)), 64)
        ]
        return sum(losses) / len(losses)

    def save(self) -> None:
        """Write everything a resumed run needs."""
        tensors = {f"weight.{n}": p for n, p in self.weights.items()}
        for length, average in self.averages.items():
            tensors |= {f"{self._prefix(length)}{n}": p for n, p in average.items()}
        names = {p: n for n, p in self.weights.items()}
        for k, optimiser in enumerate(self.optimisers):
            for p, state in optimiser.state.items():
                tensors |= {f"optimiser.{k}.{names[p]}|{key}": value for key, value in state.items()}
        state = {"recipe": asdict(self.recipe), "step": self.step, "history": self.history, **self.learns_from}
        save_checkpoint(self.checkpoint, tensors, state)

    def _prefix(self, length: float) -> str:
        return "average." if length == self.recipe.ema else f"average {length:g}."

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one. Raises InputError where it is of another recipe."""
        if not self.checkpoint.exists():
            return
        tensors, state = load_checkpoint(self.checkpoint)
        if not self._continues(state):
            raise InputError(
                f"checkpoint {self.checkpoint} belongs to another recipe ({state['recipe']}); "
                "delete it to train from the start"
            )
        # With other numbers for the same words the loss looks sound and the networks draw something else.
        if changed := [what.replace("_", " ") for what, now in self.learns_from.items() if state[what] != now]:
            raise InputError(
                f"checkpoint {self.checkpoint} was trained with another {' and another '.join(changed)} than there is "
                "now; delete it to train from the start"
            )
        kept = {length: any(key.startswith(self._prefix(length)) for key in tensors) for length in self.averages}
        if lacking := [f"{length:g}" for length, there in kept.items() if not there]:
            raise InputError(
                f"checkpoint {self.checkpoint} keeps no average of {', '.join(lacking)}; delete it to start again"
            )
        with torch.no_grad():
            for name, p in self.weights.items():
                p.copy_(tensors[f"weight.{name}"])
                for length, average in self.averages.items():
                    average[name].copy_(tensors[f"{self._prefix(length)}{name}"])
        for k, optimiser in enumerate(self.optimisers):
            prefix = f"optimiser.{k}."
            for key, value in tensors.items():
                if key.startswith(prefix):
                    name, slot = key.removeprefix(prefix).rsplit("|", 1)
                    p = self.weights[name]
                    optimiser.state[p][slot] = (
                        # Where the parameter is: so a fused optimiser asks for it.
                        value.reshape(()).to(p.device) if slot == "step" else laid_out_like(p, value)
                    )
        self.step, self.history = state["step"], state["history"]
        if 0 < self.recipe.text_encoder_steps < self.step:
            self.text_encoder.requires_grad_(False)

    def _continues(self, state: dict[str, Any]) -> bool:
        """Whether this recipe can continue from there: the same, or with another end while on the plateau."""
        then, now = DenoiserRecipe(**{**state["recipe"], "channels": tuple(state["recipe"]["channels"])}), self.recipe
        on_plateau = all(state["step"] <= (1 - r.decay) * r.steps for r in (then, now))
        return then == now or (on_plateau and replace(then, steps=now.steps) == now)

    def run(self, save_seconds: float = 120.0, until: int | None = None, snapshots: Sequence[int] = ()) -> None:
        """Train to the end (or to step `until`), saving now and then; safe to kill at any time.

        After each step in `snapshots` the averages are exported beside the checkpoint: less trained networks of the
        same run, to choose a guide from.
        """
        self.resume()
        end = self.recipe.steps if until is None else until
        bar = tqdm(initial=self.step, total=end, desc=self.recipe.name, unit="step", disable=None)
        saved, losses = time.monotonic(), []
        while self.step < end:
            losses.append(self.train_step())
            bar.update()
            if self.step in snapshots:
                for length in self.averages:
                    self._export_snapshot(length)
            if self.step % 50 == 0 or self.step == end:
                entry = {"step": self.step, "loss": float(np.mean(losses)), "held_out": self.held_out_loss()}
                self.history.append(entry)
                losses = []
                bar.set_postfix(loss=f"{entry['loss']:.4f}", held_out=f"{entry['held_out']:.4f}")
                if bar.disable:
                    print(f"{self.recipe.name} {json.dumps(entry)} {time.strftime('%H:%M:%S')}", flush=True)
            if time.monotonic() - saved > save_seconds:
                self.save()
                saved = time.monotonic()
        bar.close()
        self.save()

    def _export_snapshot(self, length: float) -> None:
        folder = snapshot(self.checkpoint, self.recipe, self.step, length)
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        self.export(temporary, length)
        (temporary / SNAPSHOT_OF).write_text(json.dumps(self._snapshot_of(self.step), indent=1), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)

    def _snapshot_of(self, step: int) -> dict[str, Any]:
        # The end of the plateau may be moved after it.
        recipe = {name: value for name, value in asdict(self.recipe).items() if name != "steps"}
        content: dict[str, Any] = json.loads(json.dumps({"recipe": recipe, "step": step, **self.learns_from}))
        return content

    def holds_snapshot(self, step: int) -> bool:
        """Whether this run, with what it learns from now, has left its averaged weights of a step."""
        return snapshot_of(snapshot(self.checkpoint, self.recipe, step)) == self._snapshot_of(step)

    def export(self, folder: Path, length: float | None = None) -> None:
        """Write the averaged weights (the recipe's, or those of `length`), half precision, in diffusers' layout."""
        weights = self.averages[self.recipe.ema if length is None else length]
        unet = build_unet(self.recipe)
        unet.load_state_dict({n.removeprefix("unet."): t for n, t in weights.items() if n.startswith("unet.")})
        unet.half().save_pretrained(folder / "unet")
        build_scheduler(self.recipe.prediction, self.recipe.beta_schedule).save_pretrained(folder / "scheduler")
        if self.recipe.text_encoder_steps:
            encoder = build_text_encoder(self.tokenizer, self.recipe.text_width, self.recipe.text_layers)
            prefix = "text_encoder."
            average = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
            encoder.load_state_dict(average, strict=False)
            encoder.half().save_pretrained(folder / "text_encoder")
            self.tokenizer.save_pretrained(folder / "tokenizer")


# Says in a snapshot's folder which run it is of.
SNAPSHOT_OF = "snapshot.json"


def snapshot_of(folder: Path) -> dict[str, Any]:
    """What a snapshot is of; empty where there is none, or where it is not whole."""
    path = folder / SNAPSHOT_OF
    content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return content


def text_encoder_digest(text_encoder: CLIPTextModel) -> str:
    """Hex digest of a text encoder's weights."""
    return tensors_digest(text_encoder.state_dict())


def snapshot(checkpoint: Path, recipe: DenoiserRecipe, step: int, length: float | None = None) -> Path:
    """Where a run leaves its averaged weights of a step: the recipe's average, or that of `length`."""
    suffix = "" if length in (None, recipe.ema) else f"-ema-{length:g}"
    return checkpoint.with_name(f"{recipe.name}-{step}{suffix}")
