"""The page of the feature spaces (docs/feature-spaces.md), made from their cards alone, and its image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from models.tinybooru.changes import UNCHANGED
from pipeline.results.space_cards import GROUPS, MADE_BY, SPACE_CARDS, SpaceCard, SpaceCards, listed, times
from pipeline.storage.contact_sheet import GAP, grid
from pipeline.tinybooru.image import Plan

PAGE = Path("docs/feature-spaces.md")
SHEET = Path("docs/feature-spaces.png")
TEMPLATE = "feature_spaces.md.j2"

GROUP_WORDS = {
    "finish": "what quality tags name: saturation, contrast, softness",
    "texture": "pixels: blur, noise, JPEG, speckle",
    "content": "which images there are",
    "structure": "how people are drawn",
}
# How many causes a sentence names.
_NAMED = 3
# The kinds of image k and of image k + N/2, so that the sheet shows both halves of the images.
_COLUMNS = (("person", "scenery"), ("object", "pattern"), ("person", "person"))
_LABEL, _FONT_SIZE, _BACKGROUND, _INK = 150, 13, (226, 226, 226), (32, 32, 32)


def page(cards: SpaceCards) -> str:
    """The page in Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (Markdown)
    )
    by_vocabulary = sorted(cards.spaces, key=lambda space: space.most_vocabulary.value)
    return environment.get_template(TEMPLATE).render(
        cards=cards,
        answers=[sentence(cards, space) for space in cards.spaces],
        primary=cards.spaces[0],
        by_vocabulary=by_vocabulary,
        groups=GROUPS,
        group_words=GROUP_WORDS,
        made_by=MADE_BY,
        numbers=SPACE_CARDS,
        sheet=SHEET,
        shown=lambda one: times(one.fd) if cards.sees(one) else f"({times(one.fd)})",
        percent=lambda share: f"{100 * share:.0f}",
    )


def sentence(cards: SpaceCards, space: SpaceCard) -> str:
    """What a space responds to most and hardly at all, with the largest response to each cause in floors."""
    found = [(f"{cause} ({times(one.fd)})", cards.hardly(one)) for cause, one in cards.by_cause(space).items()]
    answers, hardly = ([text for text, is_hardly in found if is_hardly is which] for which in (False, True))
    if not answers:
        return f"`{space.name}` hardly responds to {listed(hardly)}."
    end = f", and hardly to {listed(hardly)}" if hardly else ""
    return f"`{space.name}` responds most to {listed(answers[:_NAMED])}{end}."


def columns_of(base: Sequence[Plan]) -> list[int]:
    """Which images the sheet shows: of every kind, three of the first half and those that stand N/2 after them."""
    half = -(-len(base) // 2)
    first: list[int] = []
    for kinds in _COLUMNS:
        pairs = (k for k in range(len(base) - half) if (base[k].kind, base[k + half].kind) == kinds)
        first.append(next(k for k in pairs if k not in first))
    return [*first, *(k + half for k in first)]


def contact_sheet(images: Mapping[str, Sequence[Image.Image]], columns: Sequence[int]) -> Image.Image:
    """One row per set, named on the left, the unchanged images first; the same images of each set."""
    names = sorted(images, key=lambda name: name != UNCHANGED)
    sheet = grid([images[name][k] for name in names for k in columns], len(columns))
    labelled = Image.new("RGB", (_LABEL + sheet.width, sheet.height), _BACKGROUND)
    labelled.paste(sheet, (_LABEL, 0))
    draw, font = ImageDraw.Draw(labelled), ImageFont.load_default(_FONT_SIZE)
    height = (sheet.height - GAP) / len(names)
    for row, name in enumerate(names):
        draw.text((3 * GAP, (row + 0.5) * height), name, fill=_INK, font=font, anchor="lm")
    return labelled
