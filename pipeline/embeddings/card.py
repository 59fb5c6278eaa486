"""What a learned embedding reached on held-out images, and its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Results of one text as pipeline/embeddings/held_out.py gives them.
Results = dict[str, dict[str, Any]]
# The texts in the order in which they are shown; JSON keeps none.
_TEXTS = ("learned", "empty", "short", "general")
# Rows of noise levels that a card shows at most.
_SHOWN = 10


@dataclass(frozen=True)
class Measured:
    """Results by text: the cosine with the direction away from the guide, and the error on bad images.

    `sigmas` are the noise levels b / a; `images` is how many are held out. `ceiling` is the cosine, by the number of a
    level, where every image has a separate text. Without a guide there are no cosines, without bad images no errors.
    """

    sigmas: tuple[float, ...]
    images: int
    cosines: Results | None
    errors: Results | None
    ceiling: Mapping[int, float]

    def summary(self) -> str:
        """The means in one line."""
        found = []
        for what, results in (
            ("cosine with the guide's direction", self.cosines),
            ("error on bad images", self.errors),
        ):
            if results is not None:
                (_, learned), *others = _in_order(results)
                beside = ", ".join(f"{name} {own['mean']:.3f}" for name, own in others)
                found.append(f"held-out {what} {learned['mean']:.3f} ({beside})")
        return "; ".join(found)


def card(name: str, recipe: Mapping[str, Any], networks: Mapping[str, Any], measured: Measured) -> str:
    """The card of an embedding in Markdown: what it is, how it was learned, what it reached."""
    lines = [
        f"# {name}",
        "",
        f"A learned negative: {recipe['tokens']} vectors that a negative prompt calls as `{name}`. "
        + {
            "guide": "The direction away from it was brought as near as training could to the direction away from the "
            "guide, along unguided trajectories.",
            "flaws": f"Under it alone the network is to generate the bad images of {recipe['source']}.",
        }[str(recipe["objective"])],
        "",
        "    python -m pipeline.embeddings.learn_negative "
        + " ".join([name, *(f"--{_flag(key)} {_quoted(value)}" for key, value in recipe.items())]),
        "",
        f"Learned for the main network {networks['main'][0]} and the guide {networks['guide'][0]} (digests). The "
        "numbers, the recipe and the losses are in the file's metadata as well.",
    ]
    tables: tuple[tuple[str, str, Results | None, Mapping[int, float]], ...] = (
        ("Cosine with the direction away from the guide", "the higher the nearer", measured.cosines, measured.ceiling),
        ("Error on bad images", "weighted squared error, the lower the better", measured.errors, {}),
    )
    for title, words, results, highest in tables:
        if results is not None:
            lines += ["", f"## {title}", "", f"On {measured.images} held-out images; {words}.", ""]
            lines += _table(measured.sigmas, results, highest)
            if highest:
                lines += ["", "The ceiling is for embeddings that are learned freely for each image and noise level."]
    return "\n".join(lines) + "\n"


def _table(sigmas: tuple[float, ...], results: Results, highest: Mapping[int, float]) -> list[str]:
    texts = _in_order(results)
    names = [*(name for name, _ in texts), *(["ceiling"] if highest else [])]
    rows = ["| sigma | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    means = [f"{own['mean']:.3f} ± {own['standard_error']:.3f}" for _, own in texts]
    rows.append("| mean | " + " | ".join([*means, *([""] if highest else [])]) + " |")
    step = max(1, len(sigmas) // _SHOWN)
    shown = sorted({*range(0, len(sigmas), step), *highest})
    for level in shown:
        values = [f"{own['levels'][level]:.3f}" for _, own in texts]
        values += ([f"{highest[level]:.3f}"] if level in highest else [""]) if highest else []
        rows.append(f"| {sigmas[level]:.3g} | " + " | ".join(values) + " |")
    return rows


def _in_order(results: Results) -> list[tuple[str, dict[str, Any]]]:
    return [(name, results[name]) for name in _TEXTS if name in results]


def _flag(key: str) -> str:
    return {"source": "images-from"}.get(key, key.replace("_", "-"))


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) and " " in value else str(value)
