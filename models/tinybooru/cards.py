"""Model cards, written from the recipes, the measurements and the credits of the drawing styles."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.tinybooru.measure import MEASURED
from pipeline.files import write_atomically
from pipeline.tinybooru.styles import credits

TEMPLATE = "cards.md.j2"
HISTORY = "history.json"
# Written by the programs of these names.
WORLDCHECK, CONTACT, GUIDES = "worldcheck.json", "contact.png", "guides.json"


def write_cards(models: Path, recipes: dict[str, dict[str, object]]) -> Path:
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
        recipes=recipes,
        measured=measured,
        histories=histories,
        sizes=shipped_sizes(models),
        credits=credits(),
        worldcheck=_json(models / WORLDCHECK),
        guides=_json(models / GUIDES),
        contact=(models / CONTACT).exists(),
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


def keep_history(models: Path, name: str, history: list[dict[str, float]]) -> None:
    """Keep a run's losses for the card, thinned to ten entries and the last."""
    thinned = [*history[:: max(1, len(history) // 10)], *history[-1:]]
    content = {**_json(models / HISTORY), name: list({entry["step"]: entry for entry in thinned}.values())}
    write_atomically(models / HISTORY, (json.dumps(content, indent=1) + "\n").encode())


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
