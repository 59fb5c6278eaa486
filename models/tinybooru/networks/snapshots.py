"""Networks of a run as its stages left them (run.py keeps the averaged weights of each)."""

from pathlib import Path
from typing import Any

from transformers import CLIPTextModel, CLIPTokenizer

from models.tinybooru.networks.families import TEXT_WIDTH, FamilyRecipe, build_network
from models.tinybooru.networks.run import load_weights, snapshot_weights
from models.tinybooru.networks.text_encoder import build_text_encoder
from pipeline.errors import InputError


def _check_snapshot(state: Path, name: str) -> None:
    if not (state / "snapshots" / f"{name}.safetensors").exists():
        raise InputError(f"{state} has no snapshot {name}; `make train` makes it")


def load_network(state: Path, recipe: FamilyRecipe, seed: int, step: int) -> Any:
    """A network of the run as it was at a step. Raises InputError where the run has no such snapshot."""
    name = f"{recipe.family}-{recipe.name}-{seed}-{step}"
    _check_snapshot(state, name)
    network = build_network(recipe)
    load_weights(network, {n: t.float() for n, t in snapshot_weights(state, name).items()})
    return network


def load_texts(state: Path, seed: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """The tokenizer of a run and the frozen text encoder of a training seed. Raises InputError where it has none."""
    _check_snapshot(state, f"text-{seed}")
    tokenizer = CLIPTokenizer.from_pretrained(state / "tokenizer")
    encoder = build_text_encoder(tokenizer, TEXT_WIDTH)
    weights = {n: t.float() for n, t in snapshot_weights(state, f"text-{seed}").items()}
    encoder.load_state_dict(weights, strict=False)
    return tokenizer, encoder.eval()
