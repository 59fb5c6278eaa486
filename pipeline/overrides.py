"""What a command line changes of conf/: `group=choice` and `key=value`, checked before Hydra reads them."""

import os
import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from pipeline.errors import InputError

VARIABLE = "GUIDEDRIFT_OVERRIDES"


def from_environment() -> list[str]:
    """The overrides of the environment variable, split as a shell does. Raises InputError for an open quote."""
    text = os.environ.get(VARIABLE, "")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(
            f"{VARIABLE} is not what a shell reads as words ({error}): {text}; put each override with spaces or quotes "
            f"into quotes, for instance {quoted('negative=bad hands, blurry')}"
        ) from None


def quoted(override: str) -> str:
    """An override key=value as a shell takes it, with its value as one text for Hydra, whatever stands in it."""
    return shlex.quote(literal(override))


def literal(override: str) -> str:
    """An override key=value with its value as one text for Hydra, whatever stands in it."""
    key, _, value = override.partition("=")
    # In Hydra's quotes a backslash counts before a quote and before an interpolation.
    inner = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), value)
    inner = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", inner)
    return f'{key}="{inner}"'


def readable(overrides: list[str]) -> list[str]:
    """The overrides as Hydra reads them, each as one value.

    A text of a study (its negative prompt, an arm's, a description) is taken as it stands: Hydra's own syntax, to which
    commas, colons, `=`, quotes and brackets belong, counts there only inside quotes. Raises InputError for what is not
    an override, with the way to write it.
    """
    return [_readable(override, before) for before, override in zip(["", *overrides], overrides, strict=False)]


def _readable(override: str, before: str) -> str:
    key, equals, value = override.partition("=")
    if not key.strip() or not (equals or key.startswith("~")):
        if "=" in before:
            raise InputError(
                f"{override} is not an override; if it belongs to {before}, put that into quotes: "
                f'{shlex.quote(f"{before} {override}")}, and inside OVERRIDES="..." write {_inside(before, override)}'
            )
        raise InputError(
            f"{override} is not an override; write key=value, for instance study=sweep or generate.images=192"
        )
    if key != key.strip():
        raise InputError(f"{override} has spaces before =; write {shlex.quote(f'{key.strip()}={value.strip()}')}")
    if equals and _is_text(key) and not _is_hydras(value):
        return literal(override)
    try:
        several = OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        several = True
    if several and equals:
        # A quote that the value already has and that does not hold is not part of the text.
        bare = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
        raise InputError(
            f"{override} is not one value for Hydra, to which , : = quotes and brackets are syntax; if it is one text, "
            f"quote it: {quoted(f'{key}={bare}')}"
        )
    return override


def _inside(before: str, override: str) -> str:
    key, _, value = before.partition("=")
    return f"{key}={shlex.quote(f'{value} {override}')}"


def _is_text(key: str) -> bool:
    parts = key.lstrip("+~").split(".")
    named = parts[0] == "arms" and len(parts) > 3 and parts[-2] == "texts"
    return parts == ["negative"] or named or parts[-1] in ("negative_prompt", "description")


def _is_hydras(value: str) -> bool:
    """Whether Hydra's syntax was meant where a text may stand: quotes, null, or a mapping such as {preset: x}."""
    if value.strip() in ("", "null"):
        return True
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return True
    return re.fullmatch(r"\{(text|preset|degraded): ?[\w.-]+\}", value) is not None
