"""The card of a published study: what it holds, how it was made, what was found, and what it cannot tell."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.publishing.digits import in_two_digits
from pipeline.publishing.markdown import fenced, plain
from pipeline.publishing.pairs import FILE, configuration_name, image_columns
from pipeline.publishing.same_seeds import GRID, SEEDS
from pipeline.results.answer import answer
from pipeline.results.comparison import Comparison
from pipeline.results.interval import in_percent
from pipeline.results.metrics import Metric, shown_in
from pipeline.results.rates import VERDICTS, LabelledImages, Rates
from pipeline.study.licences import licence_fields
from pipeline.study.study import BESIDE_THE_NUMBERS, Study
from pipeline.tinybooru.styles import credits

TEMPLATE = "dataset_card.md.j2"
ADULT = "not-for-all-audiences"

# The Hub's size categories: the first whose bound the number of images is below.
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


@dataclass(frozen=True)
class Contents:
    """What a dataset holds: images by arm, pairs of all arms side by side, columns, verdicts and choices of people,
    simulated labels left out."""

    images: dict[str, int]
    pairs: int
    megabytes: float
    columns: list[str]
    labels: int
    choices: int
    labellers: int
    simulated: int


def size_category(images: int) -> str:
    """The Hub's size category of a number of images."""
    return next((name for bound, name in _SIZES if images < bound), "n>10M")


def front_matter(study: Study, contents: Contents) -> dict[str, Any]:
    """The card's metadata. Without a licence where the study does not say one: such a set is not published."""
    return {
        **(licence_fields(study.licence, study.model.licence_link) if study.licence else {}),
        "pretty_name": f"guidedrift: study {study.name}",
        "task_categories": ["text-to-image", *(["image-classification"] if contents.labels else [])],
        "size_categories": [size_category(sum(contents.images.values()))],
        "tags": [
            "guidedrift",
            "synthetic",
            "diffusion",
            *(["guidance", "negative-prompt", "autoguidance"] if study.generated else []),
            *(["tinybooru"] if study.is_embedded else [ADULT]),
        ],
        "configs": [
            {
                # The viewer opens on the default, which shows the arms side by side.
                "config_name": configuration_name(study.compared),
                # `datasets` takes a configuration named default for a second one.
                **({"default": True} if "default" not in study.compared else {}),
                "data_files": [{"split": "train", "path": FILE.as_posix()}],
            },
            *(
                {
                    "config_name": arm,
                    "data_files": [{"split": "train", "path": f"data/{arm}/part-*.parquet"}],
                }
                for arm in study.compared
            ),
        ],
    }


def write_card(study: Study, comparison: Comparison, rates: Rates, contents: Contents) -> str:
    """The card's Markdown. Texts of the configuration are untrusted: they show as they are and are never markup."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (Markdown; the filter `plain` is its escape)
    )
    environment.filters |= {"plain": plain, "interval": in_two_digits, "share": in_percent}
    settings = study.model_dump(mode="json", exclude=BESIDE_THE_NUMBERS, exclude_defaults=True, by_alias=True)
    for name, arm in study.arms.items():
        if arm.negative_preset:
            # The text that the preset stands for: whoever reads the card need not have this project.
            del settings["arms"][name]["negative_preset"]
            settings["arms"][name]["negative_prompt"] = arm.negative
    return environment.get_template(TEMPLATE).render(
        front_matter=_yaml(front_matter(study, contents)),
        study=study,
        negatives={name: arm.used_negative for name, arm in study.compared.items()},
        settings=fenced(_yaml(settings), "yaml"),
        comparison=comparison,
        contents=contents,
        answer=answer(comparison),
        grid=GRID,
        grid_seeds=SEEDS,
        pairs=configuration_name(study.compared),
        word=comparison.row_word,
        baseline_column=image_columns(list(study.compared))[study.baseline],
        scores={
            row.name: _title(row)
            for row in shown_in("card")
            if row.name in comparison.by_name(comparison.baseline).scores
        },
        shifts={row.key: row.in_words for row in shown_in("card") if row.level == "shift"},
        judged=[] if contents.simulated else _judged(rates),
        verdicts=VERDICTS,
        credits=credits() if study.is_embedded else [],
        licence=study.licence,
        sources=[source for source in (study.model.main, study.model.guide) if source] if study.generated else [],
    )


def _judged(rates: Rates) -> list[LabelledImages]:
    return [arm for arm in rates.arms if not arm.simulated]


def _title(row: Metric) -> str:
    # Whoever reads "distance" may not know which way is good.
    distance = row.level == "set" and row.better == "lower"
    return f"{row.in_words} ({row.better} is better)" if distance else row.in_words


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
