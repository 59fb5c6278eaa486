"""Wrong hands by method and stage of training: `python -m models.tinybooru.hands_study --help`.

Generates waving people of held-out captions without quality tags, the same noise in every arm; the counter reads their
digits.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from eval.scorers.malformed import UNCOUNTABLE, MalformedClassifier, load_classifier
from models.tinybooru.networks.families import (
    TEXT_WIDTH,
    FamilyRecipe,
    Side,
    alphas_on,
    build_network,
    sample,
)
from models.tinybooru.networks.run import FLOW, FLOW_SMALL, UNET, UNET_SMALL, load_weights, snapshot_weights
from models.tinybooru.networks.text_encoder import build_text_encoder, encode_text, pad_ids
from pipeline.errors import run_stage
from pipeline.prompting.presets import NEGATIVE_PRESETS
from pipeline.storage.files import write_atomically
from pipeline.tinybooru.figures import GREETING
from pipeline.tinybooru.flaws import QUALITIES
from pipeline.tinybooru.image import plan

GENERAL = NEGATIVE_PRESETS["field-note-novelai"].text
SHORT = "worst quality, low quality, lowres, blurry"
HANDS = "bad hands, extra digit, fewer digits, missing fingers"
STEPS = 20


@dataclass(frozen=True)
class StudyArm:
    """One method. `negative` None: no reference text, so the guide (if any) reads the prompt."""

    name: str
    scale: float = 1.0
    negative: str | None = None
    guide: bool = False


ARMS = (
    StudyArm("unguided"),
    StudyArm("cfg 2", 2.0, ""),
    StudyArm("cfg 4", 4.0, ""),
    StudyArm("negative short 2", 2.0, SHORT),
    StudyArm("negative general 2", 2.0, GENERAL),
    StudyArm("negative hands 2", 2.0, HANDS),
    StudyArm("negative hands 3", 3.0, HANDS),
    StudyArm("autoguidance 1.5", 1.5, None, True),
    StudyArm("autoguidance 2", 2.0, None, True),
    StudyArm("composed hands 1.5", 1.5, HANDS, True),
)


def waving_prompts(count: int) -> list[str]:
    """Held-out captions of sound greetings without flaws and without their quality tag."""
    found: list[str] = []
    index = 10_000_000  # far from what the networks were trained and tried with
    while len(found) < count:
        planned = plan(0, index)
        index += 1
        if planned.split == "validation" and planned.style == GREETING and not planned.flaws:
            found.append(", ".join(tag for tag in planned.tags if tag not in QUALITIES))
    return found


class Bench:
    """Networks of one run by name, and their text encoders."""

    def __init__(self, state: Path, tokenizer: CLIPTokenizer, device: torch.device):
        self.state, self.tokenizer, self.device = state, tokenizer, device
        self.alphas = alphas_on(device)
        self.encoders: dict[int, CLIPTextModel] = {}

    def encoder(self, seed: int) -> CLIPTextModel:
        if seed not in self.encoders:
            encoder = build_text_encoder(self.tokenizer, TEXT_WIDTH)
            encoder.load_state_dict({n: t.float() for n, t in snapshot_weights(self.state, f"text-{seed}").items()},
                                    strict=False)  # fmt: skip
            self.encoders[seed] = encoder.to(self.device).eval()
        return self.encoders[seed]

    def network(self, recipe: FamilyRecipe, seed: int, step: int) -> Any:
        network = build_network(recipe).to(self.device).eval()
        load_weights(
            network, {n: t.float() for n, t in snapshot_weights(self.state, name_of(recipe, seed, step)).items()}
        )
        return network

    def read(self, texts: list[str], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids = [pad_ids(self.tokenizer(text, truncation=True, max_length=48).input_ids, self.tokenizer.eos_token_id)
               for text in texts]  # fmt: skip
        with torch.no_grad():
            return encode_text(self.encoder(seed), torch.tensor(ids, device=self.device))

    def generate(
        self, recipe: FamilyRecipe, network: Any, guide: tuple[FamilyRecipe, Any] | None, arm: StudyArm,
        prompts: list[str], seed: int, batch: int = 512,
    ) -> torch.Tensor:  # fmt: skip
        """Images uint8 [N, 3, 64, 64] of an arm; image k's noise comes from k alone."""
        images = []
        for start in range(0, len(prompts), batch):
            texts = prompts[start : start + batch]
            noise = torch.stack(
                [torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(start + k)) for k in range(len(texts))]
            ).to(self.device)
            context, pooled = self.read(texts, seed)
            other = (context, pooled)
            if arm.negative is not None:
                c, p = self.read([arm.negative], seed)
                other = (c.expand_as(context), p.expand_as(pooled))
            reference = None
            if arm.guide and guide is not None:
                reference = Side(guide[0], guide[1], *other)
            elif arm.negative is not None:
                reference = Side(recipe, network, *other)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                x = sample(noise, Side(recipe, network, context, pooled), reference, arm.scale, STEPS, self.alphas)
            images.append(((x + 1) * 127.5).round().clamp(0, 255).byte().cpu())
        return torch.cat(images)


def digits_of(classifier: MalformedClassifier, images: torch.Tensor) -> list[str]:
    """How many digits each of the images uint8 [N, 3, H, W] shows, or why that cannot be said."""
    return classifier.counts(Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images)["digits"]


def name_of(recipe: FamilyRecipe, seed: int, step: int) -> str:
    """Name of a snapshot."""
    return f"{recipe.family}-{recipe.name}-{seed}-{step}"


def sheet(rows: list[torch.Tensor], path: Path) -> None:
    """Write rows of images uint8 [N, 3, H, W] as a PNG, twice as large."""
    pixels = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


def stages_of(state: Path, recipe: FamilyRecipe, seed: int) -> list[int]:
    """Steps of the snapshots of a network, in order."""
    prefix = f"{recipe.family}-{recipe.name}-{seed}-"
    return sorted(int(p.stem.removeprefix(prefix)) for p in (state / "snapshots").glob(f"{prefix}*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.tinybooru.hands_study", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--classifier", type=Path, required=True, help="weights of the malformed-image classifier")
    parser.add_argument("--images", type=int, default=512, help="images an arm (default: 512)")
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    began = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = CLIPTokenizer.from_pretrained(arguments.out / "tokenizer")
    bench = Bench(arguments.state, tokenizer, device)
    classifier = load_classifier(arguments.classifier, device)
    prompts = waving_prompts(arguments.images)
    results: list[dict[str, Any]] = []
    jobs = []
    for seed in range(3):
        for recipe, small in ((UNET, UNET_SMALL), (FLOW, FLOW_SMALL)):
            stages = stages_of(arguments.state, recipe, seed)
            if not stages:
                continue
            # The latest stages first: what is shipped matters most where the time ends early.
            jobs += [(len(stages) - k, seed, recipe, small, stage) for k, stage in enumerate(stages)]
    for _, seed, recipe, small, stage in sorted(jobs, key=lambda job: job[:2]):
        if time.monotonic() - began > arguments.seconds:
            print("out of time", flush=True)
            break
        network = bench.network(recipe, seed, stage)
        small_stages = stages_of(arguments.state, small, seed)
        guide = (small, bench.network(small, seed, small_stages[-1])) if small_stages else None
        rows, base = [], None
        for arm in ARMS:
            images = bench.generate(recipe, network, guide, arm, prompts, seed)
            digits = digits_of(classifier, images)
            right = np.array([d == "5" for d in digits])
            base = right if base is None else base
            results.append({
                "family": recipe.family, "seed": seed, "stage": stage, "arm": arm.name, "images": len(digits),
                "five": float(right.mean()), "uncountable": float(np.mean([d == UNCOUNTABLE for d in digits])),
                "mended": int((right & ~base).sum()), "spoilt": int((base & ~right).sum()), "digits": Counter(digits),
            })  # fmt: skip
            rows.append(images[:16])
        if seed == 0:
            sheet(rows, arguments.out / f"hands-{recipe.family}-{stage}.png")
        write_atomically(arguments.out / "hands.json", json.dumps(results).encode())
        print(round(time.monotonic() - began), recipe.family, seed, stage,
              {r["arm"]: round(100 * r["five"]) for r in results[-len(ARMS):]}, flush=True)  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
