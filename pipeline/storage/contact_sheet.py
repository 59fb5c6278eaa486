"""Contact sheets: many small images in one."""

import re
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP = 2
_BACKGROUND = (226, 226, 226)
_INK = (32, 32, 32)
_FONT_SIZE = 13
_LINE_HEIGHT = 17
# The height of the bar of an arm's colour below its name.
_BAR = 4


def grid(images: Sequence[Image.Image], columns: int, scale: int = 1) -> Image.Image:
    """A contact sheet, row by row, with a thin neutral gap between and around the images.

    Each image is enlarged `scale` times without interpolation, so that its own pixels stay visible.
    Raises ValueError where there are no images or a number is below 1.
    """
    if not images or columns < 1 or scale < 1:
        raise ValueError(f"a grid of {len(images)} images in {columns} columns at scale {scale} is empty")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    width = max(image.width for image in images) * scale
    height = max(image.height for image in images) * scale
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), _BACKGROUND)
    for k, image in enumerate(images):
        row, column = divmod(k, columns)
        enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet


def same_seed_grid(
    rows: Sequence[Sequence[Image.Image]], labels: Sequence[str], scale: int = 1, colours: Sequence[str] = ()
) -> Image.Image:
    """A sheet with one column per arm, its name above, and one row per seed: what guidance did to the same noise.

    `rows[seed][arm]`; `colours` (#RRGGBB) mark the arms by a bar below their names. Raises ValueError where a row has
    not one image for each label.
    """
    if any(len(row) != len(labels) for row in rows):
        raise ValueError(f"rows of {[len(row) for row in rows]} images do not fit {len(labels)} labels")
    sheet = grid([image for row in rows for image in row], len(labels), scale)
    font = ImageFont.load_default(_FONT_SIZE)
    bar = _BAR if colours else 0
    column = (sheet.width - GAP) // len(labels)
    titles = [_wrap(label, font, column - GAP) for label in labels]
    header = max(len(lines) for lines in titles) * _LINE_HEIGHT + GAP + bar
    labelled = Image.new("RGB", (sheet.width, header + sheet.height), _BACKGROUND)
    labelled.paste(sheet, (0, header))
    draw = ImageDraw.Draw(labelled)
    for k, lines in enumerate(titles):
        for number, line in enumerate(reversed(lines)):
            # Names stand on their images: short ones leave the space above them empty.
            top = header - bar - (number + 1) * _LINE_HEIGHT
            draw.text((GAP + k * column, top), line, fill=_INK, font=font)
    for k, colour in enumerate(colours):
        left = GAP + k * column
        draw.rectangle((left, header - _BAR, left + column - GAP - 1, header - 1), fill=colour)
    return labelled


def _wrap(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    # After an underscore, hyphen or space where possible, within a word where one is wider than the column.
    lines, line = [], ""
    for piece in re.split(r"(?<=[_\s-])", " ".join(label.split())):
        if line and font.getlength(line + piece) > width:
            lines.append(line)
            line = ""
        for character in piece:
            if line and font.getlength(line + character) > width:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line]
