"""Train the networks of the embedded world: `make train`, or `python -m models.tinybooru.train --help`.

Every part resumes from its checkpoint in models/tinybooru/checkpoints and is skipped where it is finished. On two cores
a training seed takes about three hours, the scorers one.
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from eval.features.clip import load_clip
from eval.features.extractor import embed_images
from eval.scorers.image_classifier import save_weights
from models.tinybooru.cards import keep_training, write_cards
from models.tinybooru.corpus import Corpus, corpus_of
from models.tinybooru.judge import JudgeTraining
from models.tinybooru.measure import measure_scorers
from models.tinybooru.networks.adapter import AdapterTraining, export_adapter
from models.tinybooru.networks.export import export_reader, export_seed
from models.tinybooru.networks.run import SIZES, UNET, Run, Sizes
from models.tinybooru.redrawn import Redrawing
from models.tinybooru.scorers import ClipTraining, ScorerRecipe, export_clip, train_aesthetic_head
from models.tinybooru.structure import MalformedTraining
from models.tinybooru.tokenizer import world_tokenizer
from models.tinybooru.vibe import draw_references
from models.tinybooru.world import load_world
from pipeline.errors import InputError, run_stage

HERE = Path(__file__).parent
CHECKPOINTS = HERE / "checkpoints"
STATE = CHECKPOINTS / "networks"

CLIP = ScorerRecipe("clip", steps=900, batch=256, learning_rate=1e-3)
MALFORMED = ScorerRecipe("malformed", steps=3000, batch=160, learning_rate=3e-3)
JUDGE = ScorerRecipe("judge", steps=4000, batch=128, learning_rate=2e-3, seed=2)

# Stopped early: by then images resemble their references, and steps with the UNet take ten times the others'.
ADAPTER, ADAPTER_STEPS = ScorerRecipe("adapter", steps=1800, batch=32, learning_rate=1e-3), 1000
# Where the networks with a better and a worse text encoder are compared: heads are right by then, hands are not.
READER_STEP = 1000

SCORERS = ("clip", "malformed", "judge")
PARTS = ("networks", "adapter", *SCORERS)


def train_scorers(parts: Sequence[str], sizes: Sizes, device: torch.device) -> None:
    """Train the scorers among `parts`, write their weights and what they reach on held-out images.

    The malformed classifier also learns from images that the networks of a run of `sizes` redraw, and is measured on
    them. Raises InputError where those are not trained yet.
    """
    redrawing = Redrawing(STATE, sizes)  # first: without networks nothing is trained in vain
    world = load_world(STATE)
    corpus = corpus_of(world.train, world.train_plans)
    if "clip" in parts:
        train_clip(corpus, device)
    if "malformed" in parts:
        malformed = MalformedTraining(MALFORMED, corpus, CHECKPOINTS / "malformed.safetensors", device, redrawing)
        malformed.run(len(corpus))
        save_weights(malformed.network, HERE / "malformed.safetensors")
        keep_training(HERE, "malformed", asdict(MALFORMED), device)
    if "judge" in parts:
        judge = JudgeTraining(JUDGE, corpus, CHECKPOINTS / "judge.safetensors", device)
        judge.run(len(corpus))
        save_weights(judge.network, HERE / "judge.safetensors")
        keep_training(HERE, "judge", asdict(JUDGE), device)
    measure_scorers(HERE, corpus_of(world.held_out, world.held_out_plans), device, redrawing)


def train_clip(corpus: Corpus, device: torch.device) -> None:
    """Train CLIP, with the tokenizer of the networks, and fit the aesthetic head on its embeddings."""
    tokenizer = world_tokenizer(STATE, corpus.captions())
    clip = ClipTraining(CLIP, tokenizer, corpus, CHECKPOINTS / "clip.safetensors", device)
    clip.run(len(corpus))
    export_clip(clip.network, tokenizer, HERE / "clip")
    keep_training(HERE, "clip", asdict(CLIP), device)
    embeddings = embed_images(load_clip(HERE / "clip", device), corpus.images())
    train_aesthetic_head(embeddings, corpus).save(HERE / "aesthetic.safetensors")


def train_adapter(device: torch.device) -> None:
    """Train the IP-Adapter of the main UNet that is shipped, and write it beside it."""
    world = load_world(STATE)
    corpus = corpus_of(world.train, world.train_plans)
    training = AdapterTraining(ADAPTER, HERE / "main", corpus, CHECKPOINTS / "adapter.safetensors", device)
    training.run(len(corpus), until=ADAPTER_STEPS)
    export_adapter(training.network, HERE / "ip_adapter")
    keep_training(HERE, "adapter", {**asdict(ADAPTER), "stopped": ADAPTER_STEPS}, device)
    draw_references(HERE / "vibe")


def run_of(sizes: Sizes, state: Path, device: torch.device, arguments: argparse.Namespace) -> Run:
    """A run that continues from `state`, of the world that is kept in STATE."""
    deadline = time.monotonic() + arguments.seconds
    compiled = device.type == "cpu" and not arguments.no_compile
    run = Run(sizes, load_world(STATE, sizes.images, sizes.held_out), device, state, deadline, compiled)
    run.say(images=len(run.world.train), device=str(device))
    return run


def train_poor_reader(sizes: Sizes, device: torch.device, arguments: argparse.Namespace) -> None:
    """Train the main UNet to READER_STEP with a text encoder of `--text-steps`, and write it beside the usual one.

    All else is as in the usual run: seed, initial weights, batches, noise, tokenizer. Raises InputError where that has
    not come to READER_STEP.
    """
    state = STATE.with_name(f"{STATE.name}-text-{arguments.text_steps}")
    export_reader(STATE, UNET, 0, READER_STEP, HERE / "text_encoders/better")
    shutil.copytree(STATE / "tokenizer", state / "tokenizer", dirs_exist_ok=True)
    run = run_of(replace(sizes, text_steps=arguments.text_steps), state, device, arguments)
    run.train(READER_STEP, [0], "unet-main")
    export_reader(state, UNET, 0, READER_STEP, HERE / "text_encoders/worse")
    print(f"trained a network that reads a worse text encoder into {HERE / 'text_encoders'}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.tinybooru.train", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"which of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    networks = parser.add_argument_group("networks")
    networks.add_argument("--size", choices=list(SIZES), help="how much is trained (default: gpu where there is one)")
    networks.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many seconds")
    networks.add_argument("--seeds", type=int, nargs="*", help="training seeds (default: all)")
    networks.add_argument("--only", default="", help="networks whose names begin so, as unet-main")
    networks.add_argument("--steps", type=int, help="steps of the main networks")
    networks.add_argument(
        "--text-steps",
        type=int,
        help="train only a main UNet whose text encoder was trained for this number of steps (text_encoders/)",
    )
    networks.add_argument("--no-compile", action="store_true", help="leave out torch.compile (slower steps, no wait)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    parts = arguments.parts or PARTS
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = SIZES[arguments.size or ("gpu" if device.type == "cuda" else "cpu")]
    sizes = replace(sizes, steps=arguments.steps or sizes.steps)
    if arguments.text_steps:
        train_poor_reader(sizes, device, arguments)
        return
    if "networks" in parts:
        run = run_of(sizes, STATE, device, arguments)
        run.train(chosen=arguments.seeds, only=arguments.only)
        try:
            export_seed(STATE, 0, sizes, HERE, device)
        except InputError as error:
            print(f"not exported yet: {error}")
    if "adapter" in parts:
        train_adapter(device)
    if set(SCORERS) & set(parts):
        train_scorers(parts, sizes, device)
    write_cards(HERE)
    print(f"trained {', '.join(parts)} into {HERE}; next: make worldcheck")


if __name__ == "__main__":
    run_stage(main)
