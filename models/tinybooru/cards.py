"""Model cards, written from the records of training, the measurements and the credits of the drawing styles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.tinybooru.measure import MEASURED
from pipeline.cost.usage import device_name
from pipeline.storage.files import write_atomically
from pipeline.tinybooru.build import WORLD_VERSION
from pipeline.tinybooru.styles import credits

TEMPLATE = "cards.md.j2"
HISTORY, TRAINING = "history.json", "training.json"
# Written by the programs of these names.
WORLDCHECK, CONTACT, HANDS = "worldcheck.json", "contact.png", "hands_by_eye_tables.json"


def write_cards(models: Path) -> Path:
    """Render the card of all shipped models to `models`/CARD.md and return its path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    measured = _json(models / MEASURED)
    histories = _json(models / HISTORY)
    card = environment.get_template(TEMPLATE).render(
        trainings=_json(models / TRAINING),
        world_version=WORLD_VERSION,
        measured=measured,
        histories=histories,
        sizes=shipped_sizes(models),
        credits=credits(),
        worldcheck=_json(models / WORLDCHECK),
        contact=(models / CONTACT).exists(),
        hands=_json(models / HANDS),
    )
    write_atomically(models / "CARD.md", card.encode())
    return models / "CARD.md"


def shipped_sizes(models: Path) -> dict[str, float]:
    """Megabytes of every file of weights that is shipped, by its path below `models`."""
    return {
        path.relative_to(models).as_posix(): path.stat().st_size / 1e6
        for path in sorted(models.rglob("*.safetensors"))
        if "checkpoints" not in path.parts
    }


def keep_history(models: Path, name: str, losses: Mapping[int, float]) -> None:
    """Keep a training's held-out losses by step for the card."""
    content = {**_json(models / HISTORY), name: {str(step): loss for step, loss in sorted(losses.items())}}
    write_atomically(models / HISTORY, (json.dumps(content, indent=1) + "\n").encode())


def keep_training(models: Path, name: str, recipe: dict[str, object], device: torch.device) -> None:
    """Keep how a shipped network was trained, for the card."""
    made = {"world_version": WORLD_VERSION, "device": device_name(device), "recipe": recipe}
    content = {**_json(models / TRAINING), name: made}
    write_atomically(models / TRAINING, (json.dumps(content, indent=1) + "\n").encode())


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
