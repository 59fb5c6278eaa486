"""Which guide? Less capacity, less training, both, and other averages: `python -m models.tinybooru.guides`.

As the ablation of the paper (2406.02507, section 4): every candidate reads main's text encoder and guides the shipped
main network at the same scales, prompts and seeds. Training resumes, snapshots stay in checkpoints/guides, images in
data/guides, and the table goes to guides.json, which the card shows. What the judge says is left for the world check.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextModel

from eval.distances.neighbours import neighbour_metrics
from eval.features.clip import Clip, load_clip
from eval.features.extractor import embed_images
from models.tinybooru.cards import GUIDES, write_cards
from models.tinybooru.corpus import load_corpus
from models.tinybooru.denoiser import DenoiserRecipe, build_unet, snapshot, snapshot_of, text_encoder_digest
from models.tinybooru.held_out_sets import IMAGES_CHOSEN_WITH, UNGUIDED, draw_set, held_out, prompt_of, study_of
from models.tinybooru.train import (
    CHECKPOINTS,
    DATA,
    GUIDE,
    HERE,
    MAIN,
    SNAPSHOTS,
    guide_checkpoint,
    guide_training,
)
from models.tinybooru.worldcheck import fd_to
from pipeline.errors import InputError, run_stage
from pipeline.execution.allocator import keep_freed_memory
from pipeline.storage.files import write_atomically
from pipeline.storage.shards import decode_images, read_set
from pipeline.tinybooru.build import build

RESULTS = HERE / GUIDES
IMAGES = Path("data/guides")
SCALES = (1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Run:
    """One training run, the steps whose averages are candidates, and the decays of further averages."""

    recipe: DenoiserRecipe
    snapshots: tuple[int, ...]
    lengths: tuple[float, ...] = ()


def _steps(*steps: int) -> tuple[int, ...]:
    return tuple(step for step in steps if step <= MAIN.steps)


# A guide of (32, 64) with 300 steps overshoots at the lowest scale already (README.md).
RUNS = (Run(GUIDE, _steps(1200, 3000, MAIN.steps), lengths=(0.95, 0.99)),)
# The step of the first run at which its other averages are candidates, too.
AVERAGED_AT = 1200
# Higher scales are not drawn once the distance is this many times that of no guidance: it only grows from there.
OVERSHOT = 1.5


@dataclass(frozen=True)
class Candidate:
    """A network that may be the guide; `ema` is the decay a step of its average of weights."""

    folder: Path
    recipe: DenoiserRecipe
    steps: int
    ema: float

    @property
    def lesser_in(self) -> str:
        """What it has less of than main."""
        less = {
            "capacity": self.recipe.channels != MAIN.channels,
            "training": self.steps < MAIN.steps,
        }
        return " and ".join(name for name, true in less.items() if true)


def candidates() -> list[Candidate]:
    """Main's own snapshots, and those of the runs."""
    main = CHECKPOINTS / "main.safetensors"
    found = [Candidate(snapshot(main, MAIN, steps), MAIN, steps, MAIN.ema) for steps in _steps(*SNAPSHOTS)]
    for run in RUNS:
        for steps in run.snapshots:
            for ema in (run.recipe.ema, *(run.lengths if steps == AVERAGED_AT else ())):
                folder = snapshot(guide_checkpoint(run.recipe), run.recipe, steps, ema)
                found.append(Candidate(folder, run.recipe, steps, ema))
    return found


def measure(
    name: str, arm: dict[str, Any], guide: Path | None, reference: torch.Tensor, clip: Clip, compiled: bool
) -> dict[str, float]:
    """Draw as many images as the reference [N, D] has, and compare them with it: FD with interval, recall."""
    study = study_of({"unguided": UNGUIDED, "arm": arm}, len(reference), guide, compiled=compiled)
    prompts = [prompt_of("good", plan) for plan in held_out("good", len(reference))]
    draw_set(study, "arm", prompts, IMAGES / name, clip.device)
    embeddings = embed_images(clip, decode_images(read_set(IMAGES / name, ["image"])))
    fd = fd_to(reference, embeddings)
    found = {"fd": fd.value, "low": fd.low, "high": fd.high}
    found["recall"] = neighbour_metrics(embeddings, reference).recall
    return {key: round(value, 4) for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.tinybooru.guides", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES_CHOSEN_WITH, help="images a figure (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads of training (default: all cores)")
    parser.add_argument("--text", type=Path, default=HERE / "main", help="where main's text encoder lies")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile (slower, no wait)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only-train", action="store_true", help="stop when all candidates are trained")
    which.add_argument("--no-train", action="store_true", help="compare the candidates that are there")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    compiled = not arguments.no_compile
    if not arguments.no_train:
        corpus, validation = load_corpus(DATA / "train"), load_corpus(DATA / "validation")
        for run in RUNS:
            training = guide_training(run.recipe, corpus, validation, arguments.text, compiled, run.lengths)
            training.run(until=run.snapshots[-1], snapshots=run.snapshots)
    # Main's earlier averages are where main was trained, which takes hours.
    chosen = [candidate for candidate in candidates() if snapshot_of(candidate.folder)]
    encoder = CLIPTextModel.from_pretrained(
        arguments.text / "text_encoder", torch_dtype=torch.float32, use_safetensors=True
    )
    for candidate in chosen:
        if snapshot_of(candidate.folder)["text_encoder"] not in (None, text_encoder_digest(encoder)):
            raise InputError(
                f"{candidate.folder} reads another text encoder than the one in {arguments.text}; delete the runs in "
                f"{candidate.folder.parent} to retrain them, or name their text encoder with --text"
            )
    if missing := [candidate.folder.name for candidate in candidates() if candidate not in chosen]:
        print(
            f"not in {CHECKPOINTS}: {', '.join(missing)}; `make train` makes main's, leaving out --no-train the others"
        )
    if arguments.only_train:
        print(f"{len(chosen)} candidates in {CHECKPOINTS}; next: python -m models.tinybooru.guides")
        return

    images, device = arguments.images, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    build(IMAGES / "real", "reference", images, 0, good_only=True)
    real = decode_images(read_set(IMAGES / "real", ["image"]))
    clip = load_clip(HERE / "clip", device)
    reference = embed_images(clip, real)
    plain = measure("unguided", UNGUIDED, None, reference, clip, compiled)
    unguided = {"guide": "none", "scale": 1.0, **plain}
    rows: list[dict[str, Any]] = [unguided]
    for candidate in chosen:
        unet = build_unet(candidate.recipe)
        known = {
            "guide": candidate.lesser_in,
            "channels": list(candidate.recipe.channels),
            "parameters": sum(p.numel() for p in unet.parameters()),
            "steps": candidate.steps,
            "ema": candidate.ema,
        }
        for scale in SCALES:
            arm = {"method": "autoguidance", "scale": scale}
            name = f"{candidate.folder.name}-{scale:g}"
            found = measure(name, arm, candidate.folder, reference, clip, compiled)
            rows.append({**known, "scale": scale, **found})
            content = {"images": images, "main_steps": MAIN.steps, "rows": rows}
            write_atomically(RESULTS, (json.dumps(content, indent=1) + "\n").encode())
            print(json.dumps(rows[-1]), flush=True)
            if found["fd"] > OVERSHOT * plain["fd"]:
                break
    write_cards(HERE)
    best = min(rows, key=lambda row: float(row["fd"]))
    print(f"{len(rows)} rows in {RESULTS}; FD {unguided['fd']} unguided, best {json.dumps(best)}")


if __name__ == "__main__":
    run_stage(main)
