"""YAML from outside: plain data, read without running anything, and of bounded size once aliases are written out."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError, printable

LARGEST_FILE = 2**20
# Nine lines of aliases to aliases stand for a billion values ("billion laughs"). The largest study here has 500.
_MOST_VALUES = 100_000
# What YAML 1.1 reads as something else than text, by its tag.
_MISREAD = {"bool": "true or false", "null": "nothing", "int": "a number", "float": "a number"}
# A first look for them; most files hold none, and are not parsed for it.
_SUSPICIOUS = re.compile(
    rb"""(?imx) (?:^|[{,\[?:-]) [ \t"-]* (?:no|off|on|yes|true|false|null|~|[-+.\d][-+.\da-fx_:]*)
    [ \t]* (?:[:,\]}]|\r?$)"""
)
# Of PyYAML's messages, those about the first character of a text without quotes.
_OF_A_FIRST_CHARACTER = (
    "cannot start any token",
    "while scanning a block scalar",
    "while scanning an alias",
    "while scanning an anchor",
    "while scanning a tag",
    "while scanning a directive",
    "could not determine a constructor for the tag",
)
# What PyYAML raises for wrong content besides its own errors: `!!bool x` is a KeyError, `!!timestamp x` an
# AttributeError, 2001-99-99 a ValueError, a thousand brackets a RecursionError.
YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def way_to_quote(error: Exception) -> str:
    """What to write instead where YAML's error is about the characters of a text; empty for others.

    Tags such as @_@, >_< and |_| begin with characters that are syntax, and \\( is not an escape.
    """
    said = str(error)
    if "unknown escape character" in said:
        return "; put the text into single quotes, in which a backslash is a backslash"
    if "found character '\\t'" in said:
        return "; indent with spaces instead of tabs"
    if any(words in said for words in _OF_A_FIRST_CHARACTER):
        return "; put a text that begins with one of @ ` % * & ! | > = into quotes: '>_<'"
    return ""


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
        raise InputError(f"{path} is not YAML ({reason}){way_to_quote(error)}; {way_out}") from None
    raise InputError(f"{path} holds aliases (*name) that stand for more than {_MOST_VALUES} values; write them out")


def check_aliases(path: Path) -> None:
    """Raise InputError for a file that `read_yaml` would refuse, where it has aliases or is large; others are quick."""
    if path.stat().st_size > LARGEST_FILE or b"*" in path.read_bytes():
        read_yaml(path, "fix it")


def check_names(path: Path) -> None:
    """Raise InputError for a file of conf/ with a name that YAML does not read as text, such as an arm called `no`.

    Names are keys, and the choices of a list of defaults.
    """
    content = path.read_bytes()
    if not _SUSPICIOUS.search(content):
        return
    try:
        root = yaml.compose(content.decode(), Loader=yaml.SafeLoader)
    except YAML_ERRORS:  # told where the file is read
        return
    for node in _names(root, {}):
        kind = node.tag.rpartition(":")[2]
        if kind in _MISREAD:
            read = {"bool": str(_says_true(node.value)).lower()}.get(kind, _MISREAD[kind])
            raise InputError(f"{path}:{node.start_mark.line + 1}: {said_misread(node.value, read)}")


def said_misread(written: str, read: str) -> str:
    """What to say about a name that YAML read as something else."""
    return f'the name {written or "that is empty"} is read as {read}; put it into quotes: "{written}"'


def misread_key(content: Any, where: str = "") -> str:
    """What to say about the first key of plain content that is not text; empty where all are."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if not isinstance(key, str):
            place = where or "the top level"
            if isinstance(key, bool):
                words = "yes, on or true" if key else "no, off or false"
                return f"{place}: a name was read as {str(key).lower()} ({words} without quotes); put it into quotes"
            read = "nothing (null or ~ without quotes)" if key is None else f"{key}, which is not text"
            return f"{place}: a name was read as {read}; put it into quotes"
        if found := misread_key(value, f"{where}.{key}".lstrip(".")):
            return found
    for k, value in enumerate(content) if isinstance(content, list) else ():
        if found := misread_key(value, f"{where}.{k}"):
            return found
    return ""


def _says_true(value: str) -> bool:
    return value.lower() in ("yes", "on", "true", "y")


def _names(node: yaml.Node | None, seen: dict[int, None]) -> Iterator[yaml.Node]:
    # Every key, and every plain item of a list of defaults. An alias is looked at once.
    if node is None or id(node) in seen:
        return
    seen[id(node)] = None
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _names(child, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            if key.value == "defaults" and isinstance(value, yaml.SequenceNode):
                yield from _choices(value)
            yield from _names(value, seen)


def _choices(defaults: yaml.SequenceNode) -> Iterator[yaml.Node]:
    for entry in defaults.value:
        for _, value in entry.value if isinstance(entry, yaml.MappingNode) else ():
            # `group: null` is Hydra's way to choose nothing.
            if isinstance(value, yaml.SequenceNode):
                yield from value.value
            elif value.tag != "tag:yaml.org,2002:null":
                yield value


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
