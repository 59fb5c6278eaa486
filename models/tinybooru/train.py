"""Train the networks of the embedded world: `make train`, or `python -m models.tinybooru.train --help`.

Every part resumes from its checkpoint in models/tinybooru/checkpoints and is skipped where it is finished.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from eval.features.clip import load_clip
from eval.features.extractor import embed_images
from eval.scorers.image_classifier import save_weights
from models.tinybooru.cards import keep_history, keep_training, write_cards
from models.tinybooru.corpus import Corpus, load_corpus
from models.tinybooru.denoiser import DenoiserRecipe, DenoiserTraining, snapshot
from models.tinybooru.judge import JudgeTraining
from models.tinybooru.measure import measure_scorers
from models.tinybooru.scorers import (
    ClipTraining,
    ScorerRecipe,
    export_clip,
    train_aesthetic_head,
)
from models.tinybooru.structure import MalformedTraining
from models.tinybooru.tokenizer import train_tokenizer
from pipeline.errors import InputError, run_stage
from pipeline.prompting.presets import NEGATIVE_PRESETS
from pipeline.storage.shards import decode_images, read_set
from pipeline.tinybooru.build import build

HERE = Path(__file__).parent
CHECKPOINTS = HERE / "checkpoints"
DATA = Path("data/tinybooru")
WORLD_SEED, TRAINING_IMAGES, HELD_OUT_IMAGES = 0, 30000, 6656

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
# Less trained main networks to choose a guide from (guides.py).
SNAPSHOTS = (1000, 1500, 2000, 3000)
# Less capacity, and half of main's training: the rate is on its plateau when the run is stopped. Chosen by guides.py.
GUIDE = replace(MAIN, name="guide-32-64", channels=(32, 64), text_encoder_steps=0, seed=1)
GUIDE_STEPS = 3000
CLIP = ScorerRecipe("clip", steps=900, batch=256, learning_rate=1e-3)
MALFORMED = ScorerRecipe("malformed", steps=4000, batch=192, learning_rate=3e-3)
JUDGE = ScorerRecipe("judge", steps=4000, batch=128, learning_rate=2e-3, seed=2)

PARTS = ("clip", "malformed", "judge", "main", "guide")
# The shipped tokenizer was trained with these; more of them would make another vocabulary.
PRESETS_IN_VOCABULARY = (
    "tinybooru",
    "novelai-light",
    "novelai-heavy",
    "novelai-human-focus",
    "animagine",
    "field-note-novelai",
)


def preset_texts() -> list[str]:
    """Texts of presets, often enough for their words to become tokens."""
    return [NEGATIVE_PRESETS[name].text for name in PRESETS_IN_VOCABULARY] * 50


def guide_checkpoint(recipe: DenoiserRecipe) -> Path:
    """Where the run of a guide is kept, its snapshots beside it."""
    return CHECKPOINTS / "guides" / f"{recipe.name}.safetensors"


def guide_training(
    recipe: DenoiserRecipe,
    corpus: Corpus,
    held_out: Corpus,
    text_folder: Path,
    compiled: bool,
    lengths: Sequence[float] = (),
) -> DenoiserTraining:
    """The run of a guide, with the text encoder and tokenizer in `text_folder`. Raises InputError without them."""
    for part in ("text_encoder", "tokenizer"):
        if not (text_folder / part).is_dir():
            raise InputError(f"{text_folder} has no {part}; `python -m models.tinybooru.train main` makes it")
    encoder = CLIPTextModel.from_pretrained(
        text_folder / "text_encoder", torch_dtype=torch.float32, use_safetensors=True
    )
    tokenizer = CLIPTokenizer.from_pretrained(text_folder / "tokenizer")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = guide_checkpoint(recipe)
    return DenoiserTraining(recipe, tokenizer, corpus, held_out, encoder, checkpoint, device, compiled, lengths)


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

    for split, images in (("train", TRAINING_IMAGES), ("validation", HELD_OUT_IMAGES)):
        build(DATA / split, split, images, WORLD_SEED)
    corpus, held_out = load_corpus(DATA / "train"), load_corpus(DATA / "validation")
    tokenizer = train_tokenizer([*corpus.captions(), *preset_texts()])

    if "clip" in parts:
        clip = ClipTraining(CLIP, tokenizer, corpus, CHECKPOINTS / "clip.safetensors", device)
        clip.run(len(corpus))
        export_clip(clip.network, tokenizer, HERE / "clip")
        keep_training(HERE, "clip", asdict(CLIP), device)
        embeddings = embed_images(load_clip(HERE / "clip", device), decode_images(read_set(DATA / "train", ["image"])))
        train_aesthetic_head(embeddings, corpus).save(HERE / "aesthetic.safetensors")
    if "malformed" in parts:
        malformed = MalformedTraining(MALFORMED, corpus, CHECKPOINTS / "malformed.safetensors", device)
        malformed.run(len(corpus))
        save_weights(malformed.network, HERE / "malformed.safetensors")
        keep_training(HERE, "malformed", asdict(MALFORMED), device)
    if "judge" in parts:
        judge = JudgeTraining(JUDGE, corpus, CHECKPOINTS / "judge.safetensors", device)
        judge.run(len(corpus))
        save_weights(judge.network, HERE / "judge.safetensors")
        keep_training(HERE, "judge", asdict(JUDGE), device)
    if {"clip", "malformed", "judge"} & set(parts):
        measure_scorers(HERE, DATA / "validation", device)
    compiled = not arguments.no_compile
    if "main" in parts:
        checkpoint = CHECKPOINTS / "main.safetensors"
        training = DenoiserTraining(MAIN, tokenizer, corpus, held_out, None, checkpoint, device, compiled)
        training.run(snapshots=SNAPSHOTS)
        training.export(HERE / "main")
        keep_history(HERE, "main", training.history)
        keep_training(HERE, "main", asdict(MAIN), device)
    if "guide" in parts:
        guide = guide_training(GUIDE, corpus, held_out, HERE / "main", compiled)
        if not guide.holds_snapshot(GUIDE_STEPS):
            guide.run(until=GUIDE_STEPS, snapshots=(GUIDE_STEPS,))
        if not guide.holds_snapshot(GUIDE_STEPS):
            raise InputError(
                f"checkpoint {guide.checkpoint} is {guide.step} steps on, beyond the {GUIDE_STEPS} whose average is "
                "shipped, and that is not beside it; delete it to train from the start"
            )
        for part in ("unet", "scheduler"):
            trained = snapshot(guide.checkpoint, GUIDE, GUIDE_STEPS) / part
            shutil.copytree(trained, HERE / "guide" / part, dirs_exist_ok=True)
        keep_training(HERE, "guide", {**asdict(GUIDE), "stopped after steps": GUIDE_STEPS}, device)
    write_cards(HERE)
    print(f"trained {', '.join(parts)} into {HERE}; next: make repro")


if __name__ == "__main__":
    run_stage(main)
