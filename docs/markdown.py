"""Templates of the pages in Markdown."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def markdown_templates(folder: Path) -> Environment:
    """The templates in a folder: a name that is not given is an error, and a line of a statement leaves no line."""
    return Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 (Markdown)
    )
