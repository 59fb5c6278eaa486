"""What must not be published: credentials, people's addresses and names, places on this machine."""

import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors import safe_open

from pipeline.credentials import credential_patterns
from pipeline.errors import InputError

_PERSONAL = {
    "an e-mail address": r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[A-Za-z]{2,}\b",
    "a folder of this machine's user": r"(/home/|/Users/|\b[A-Za-z]:\\+Users\\+)[^/\\\s\"']+|/root/",
}
_PATTERNS = {what: re.compile(pattern) for what, pattern in _PERSONAL.items()}
# A backslash before punctuation is how Markdown shows it.
_ESCAPED = re.compile(r"\\([^\w\s])")
_TEXT_ROWS = 1000
_IMAGES = (".gif", ".jpeg", ".jpg", ".png", ".webp")


def labeller_names(folder: Path) -> set[str]:
    """The labellers in the label files of `folder`, as they are written there. Raises InputError."""
    names = set()
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                names |= {str(json.loads(line)["labeller"])} if line.strip() else set()
            except (ValueError, KeyError, TypeError, RecursionError):
                raise InputError(f"{path}:{number} is no label; mend the line or pull the labels again") from None
    return names


def check_leaks(files: Mapping[str, Path], names: Iterable[str], environment: Mapping[str, str] = os.environ) -> None:
    """Look through every text of the files: text files, string columns of parquet, metadata of weights and images.

    Raises InputError that names the file and what was found, and never shows a credential, and for an image that
    cannot be read.
    """
    patterns = credential_patterns(environment) | _PATTERNS
    for name in names:
        patterns[f"the labeller '{name}'"] = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    for name, path in files.items():
        for where, text in (("its name", name), *_texts(path)):
            for what, pattern in patterns.items():
                if pattern.search(text):
                    raise InputError(
                        f"{path} holds {what} ({where}), which must not be published; "
                        "take it out where it comes from and make the file anew"
                    )


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    # (where, text) of everything in a file that a person could read.
    if path.suffix == ".parquet":
        yield from _parquet_texts(path)
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            yield "metadata", json.dumps(file.metadata() or {})
    elif path.suffix.lower() in _IMAGES:
        yield "metadata", _image_metadata(path)
    else:
        content = path.read_bytes()
        for encoding in ("utf-8", "latin-1"):
            try:
                text = content.decode(encoding)
                break
            except UnicodeDecodeError:
                continue
        yield "text", text
        if path.suffix == ".md":
            yield "text", _ESCAPED.sub(r"\1", html.unescape(text))


def _image_metadata(path: Path) -> str:
    # Not the file's bytes: among compressed pixels anything turns up by chance, an e-mail address in half a megabyte.
    try:
        with Image.open(path) as image:
            image.load()  # PNG may have text after the pixels
            found = {**image.info, **image.getexif(), **getattr(image, "text", {})}
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is no image that can be read ({error}); make the file anew") from None
    values = (v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in found.values())
    return "\n".join([*map(str, found), *values])


def _parquet_texts(path: Path) -> Iterator[tuple[str, str]]:
    with pq.ParquetFile(path) as file:
        yield "metadata", repr(file.schema_arrow.metadata or {})
        # Images are binary and are not text; their metadata was never written (pipeline.storage.shards.encode_png).
        columns = [f"{field.name}.path" if _is_image(field.type) else field.name for field in file.schema_arrow]
        for batch in file.iter_batches(batch_size=_TEXT_ROWS, columns=columns):
            for field in batch.schema:
                if _has_text(field.type):
                    yield f"column {field.name}", json.dumps(batch.column(field.name).to_pylist(), ensure_ascii=False)


def _is_image(kind: pa.DataType) -> bool:
    # As `datasets` stores images.
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def _has_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return True
    return any(_has_text(kind.field(k).type) for k in range(kind.num_fields))
