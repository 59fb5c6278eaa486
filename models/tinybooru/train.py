"""Train the networks of the embedded world: `make train`, or `python -m models.tinybooru.train --help`.

Every part resumes from its checkpoint in models/tinybooru/checkpoints and is skipped where it is finished.
"""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from eval.clip import load_clip
from eval.extractor import embed_images
from eval.picture_classifier import save_weights
from models.tinybooru.cards import keep_history, write_cards
from models.tinybooru.corpus import load_corpus
from models.tinybooru.denoiser import DenoiserRecipe, DenoiserTraining, snapshot
from models.tinybooru.judge import JudgeTraining
from models.tinybooru.measure import measure_scorers
from models.tinybooru.scorers import (
    ClipTraining,
    MalformedTraining,
    ScorerRecipe,
    export_clip,
    train_aesthetic_head,
)
from models.tinybooru.tokenizer import train_tokenizer
from pipeline.errors import InputError, run_stage
from pipeline.presets import NEGATIVE_PRESETS
from pipeline.shards import decode_images, read_set
from pipeline.tinybooru.build import build

HERE = Path(__file__).parent
CHECKPOINTS = HERE / "checkpoints"
DATA = Path("data/tinybooru")
WORLD_SEED, TRAINING_PICTURES, HELD_OUT_PICTURES = 0, 30000, 3072

MAIN = DenoiserRecipe(
    "main",
    channels=(48, 96),
    steps=6000,
    text_encoder_steps=1000,
    learning_rate=1.5e-3,
    # What the world shows seldom and in many ways; without it malformed people and glasses are learnt last.
    focus={"bad anatomy": 0.25, "glasses": 0.08, "sunglasses": 0.08},
    focus_from=2100,
)
# Less trained main networks to choose a guide from (guides.py), and the one that is the guide.
SNAPSHOTS = (1000, 1500, 2000, 3000)
GUIDE_STEPS = 1000
CLIP = ScorerRecipe("clip", steps=900, batch=256, learning_rate=1e-3)
MALFORMED = ScorerRecipe("malformed", steps=1500, batch=128, learning_rate=2e-3)
JUDGE = ScorerRecipe("judge", steps=4000, batch=128, learning_rate=2e-3, seed=2)

PARTS = ("clip", "malformed", "judge", "main", "guide")
# The shipped tokenizer was trained with these; more of them would make another vocabulary.
PRESETS_IN_VOCABULARY = ("tinybooru", "novelai-light", "novelai-heavy", "novelai-human-focus", "animagine")


def preset_texts() -> list[str]:
    """Texts of presets, often enough for their words to become tokens."""
    return [NEGATIVE_PRESETS[name].text for name in PRESETS_IN_VOCABULARY] * 50


def recipes() -> dict[str, dict[str, object]]:
    """How each network is trained, for the card."""
    trained = {recipe.name: asdict(recipe) for recipe in (MAIN, CLIP, MALFORMED, JUDGE)}
    return {**trained, "guide": {"average of main's weights after steps": GUIDE_STEPS}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.tinybooru.train", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"which of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile (slower steps, no wait)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    parts = arguments.parts or PARTS
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    for split, pictures in (("train", TRAINING_PICTURES), ("validation", HELD_OUT_PICTURES)):
        build(DATA / split, split, pictures, WORLD_SEED)
    corpus, held_out = load_corpus(DATA / "train"), load_corpus(DATA / "validation")
    tokenizer = train_tokenizer([*corpus.captions(), *preset_texts()])

    if "clip" in parts:
        clip = ClipTraining(CLIP, tokenizer, corpus, CHECKPOINTS / "clip.safetensors", device)
        clip.run(len(corpus))
        export_clip(clip.network, tokenizer, HERE / "clip")
        embeddings = embed_images(load_clip(HERE / "clip", device), decode_images(read_set(DATA / "train", ["image"])))
        train_aesthetic_head(embeddings, corpus).save(HERE / "aesthetic.safetensors")
    if "malformed" in parts:
        malformed = MalformedTraining(MALFORMED, corpus, CHECKPOINTS / "malformed.safetensors", device)
        malformed.run(len(corpus))
        save_weights(malformed.network, HERE / "malformed.safetensors")
    if "judge" in parts:
        judge = JudgeTraining(JUDGE, corpus, CHECKPOINTS / "judge.safetensors", device)
        judge.run(len(corpus))
        save_weights(judge.network, HERE / "judge.safetensors")
    if {"clip", "malformed", "judge"} & set(parts):
        measure_scorers(HERE, DATA / "validation", device)
    compiled = not arguments.no_compile
    if "main" in parts:
        checkpoint = CHECKPOINTS / "main.safetensors"
        training = DenoiserTraining(MAIN, tokenizer, corpus, held_out, None, checkpoint, device, compiled)
        training.run(snapshots=SNAPSHOTS)
        training.export(HERE / "main")
        keep_history(HERE, "main", training.history)
    if "guide" in parts:
        less_trained = snapshot(CHECKPOINTS / "main.safetensors", MAIN, GUIDE_STEPS)
        if not less_trained.is_dir():
            raise InputError(f"there is no {less_trained}; training main leaves it there")
        shutil.copytree(less_trained / "unet", HERE / "guide" / "unet", dirs_exist_ok=True)
    write_cards(HERE, recipes())
    print(f"trained {', '.join(parts)} into {HERE}; next: make repro")


if __name__ == "__main__":
    run_stage(main)
