"""YAML from outside: plain data, read without running anything, and of bounded size once aliases are written out."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError, printable

LARGEST_FILE = 2**20
# Nine lines of aliases to aliases stand for a billion values ("billion laughs"). The largest study here has 500.
_MOST_VALUES = 100_000
# What PyYAML raises for wrong content besides its own errors: `!!bool x` is a KeyError, `!!timestamp x` an
# AttributeError, 2001-99-99 a ValueError, a thousand brackets a RecursionError.
YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def read_yaml(path: Path, way_out: str) -> Any:
    """The content of a YAML file, without any object but plain data.

    Raises InputError, in one line that ends with `way_out`, for a file that is missing, larger than 1 MiB, no YAML, or
    one whose aliases stand for more than 100,000 values.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {way_out}") from None
    if len(content) > LARGEST_FILE:
        raise InputError(f"{path} is larger than {LARGEST_FILE} bytes; {way_out}")
    try:
        # Decoded here: PyYAML would follow a byte order mark into other encodings.
        loader = yaml.SafeLoader(content.decode())
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            values = _values(node, {})
            if values <= _MOST_VALUES:
                return loader.construct_document(node)
        finally:
            loader.dispose()
    except YAML_ERRORS as error:
        reason = printable(str(error))[:300] or type(error).__name__
        raise InputError(f"{path} is not YAML ({reason}); {way_out}") from None
    raise InputError(f"{path} holds aliases (*name) that stand for more than {_MOST_VALUES} values; write them out")


def check_aliases(path: Path) -> None:
    """Raise InputError for a file that `read_yaml` would refuse, where it has aliases or is large; others are quick."""
    if path.stat().st_size > LARGEST_FILE or b"*" in path.read_bytes():
        read_yaml(path, "mend it")


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    # How many values a node stands for; without end where it holds itself.
    if id(node) not in known:
        known[id(node)] = float("inf")
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]
