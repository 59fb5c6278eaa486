"""What comes from outside, damaged or made to harm, is refused by an InputError in one line or is read as what it is.

`make fuzz` (fuzz.py) runs the same with 100,000 inputs each; docs/security.md has what that found.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Features, Image, List, Value
from hypothesis import given
from hypothesis import strategies as st
from mutations import mutated, swapped
from PIL import Image as PillowImage
from repository_copy import ROOT

from labeling.records import read_labels, read_pair_labels
from pipeline.errors import InputError
from pipeline.prompting.emphasis import LARGEST, parse, write
from pipeline.prompting.strict_check import check_prompt
from pipeline.storage.checksum import KEY, ROOM, seal
from pipeline.storage.shards import decode_images, encode_png, encode_table, read_table, shard_fingerprint
from pipeline.study.study import load_study, parse_study

# Errors are shown on a terminal and kept in logs.
LONGEST_ERROR = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for one input after the other: hypothesis gives all examples of a test the same fixtures."""
    return tmp_path_factory.mktemp("hostile")


@contextmanager
def refused_or_not() -> Iterator[None]:
    """The block may raise an InputError, of one line that does no harm to a terminal, and nothing else."""
    said = ""
    try:
        yield
    except InputError as error:
        said = str(error)
    assert said.isprintable(), said[:500]
    assert len(said) < LONGEST_ERROR


def _small(content: dict[str, Any]) -> bytes:
    # PyYAML reads a kilobyte in some milliseconds, so sections of which there are others like them are left out.
    arms = dict(list(content["arms"].items())[:2])
    return yaml.safe_dump(
        {**content, "arms": {content["baseline"]: content["arms"][content["baseline"]], **arms}}
    ).encode()


CONTENT: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_bytes())
# One study of every kind of section that the default one has not.
RICH: dict[str, Any] = {
    **CONTENT,
    "model": {**CONTENT["model"], "weaken": {"name": "lora", "file": "models/x.safetensors"}, "licence": "mit"},
    "prompts": {"source": "grid", "axes": [["a", "b"], ["c", ""]], "sample": 3},
    "arms": {
        "cfg": {"method": "cfg", "scale": 2.0, "schedule": {"name": "interval", "lo": 1.0, "hi": 3.0}},
        "mix": {
            "method": "mix",
            "scale": 2.0,
            "terms": [{"reference": "guide", "share": 0.5}, {"reference": "negative"}],
            "negative_prompt": "(bad:1.2), [worse]",
            "canvas": {"width": 64, "height": 64},
            "sampler": {"scheduler": "euler", "steps": 4, "levels": "polyexponential", "rho": 2.0},
            "post": {"name": "apg"},
            "image_to_image": {
                "from": "cfg",
                "source": {"method": "cfg", "scale": 2.0, "schedule": {"name": "interval", "lo": 1.0, "hi": 3.0}},
                "strength": 0.5,
            },
        },
    },
    "baseline": "cfg",
}
YAML_TOKENS = (
    *(b"&a ", b"*a", b"<<: *a\n", b"!!python/object/apply:os.system ", b"!!timestamp ", b"!!bool ", b"!!binary "),
    *(
        b"!!float ",
        b"!!int ",
        b"!!set ",
        b"!!omap ",
        b"!!null ",
        b"---\n",
        b"...\n",
        b"- ",
        b": ",
        b"? ",
        b"|\n",
        b">\n",
    ),
    *(
        b"2001-99-99",
        b"0x",
        b"1_0:99",
        b"1e400",
        b".nan",
        b".inf",
        b"-.inf",
        b"\t",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(b"[" * 50, b"{" * 50, b'"', b"'", b"#", b"%YAML 1.1\n", b"../../x", b"${oc.env:HOME}", b"\n  ", b"\x85", b"~"),
)


FILES = (_small(CONTENT), _small(RICH))


@given(content=mutated(FILES, YAML_TOKENS))
def test_a_configuration_file_of_any_bytes_is_a_study_or_an_input_error(folder: Path, content: bytes) -> None:
    path = folder / "params.yaml"
    path.write_bytes(content)
    with refused_or_not():
        load_study(path)


@given(content=st.one_of(swapped(CONTENT), swapped(RICH)))
def test_a_configuration_of_any_values_is_a_study_or_an_input_error(content: dict[str, Any]) -> None:
    with refused_or_not():
        parse_study(content, "params.yaml")


EMPHASIS_TOKENS = tuple(
    token.encode()
    for token in (
        *("(", ")", "[", "]", "{", "}", "\\", ":", "|", "::", " BREAK ", "AND", "<lora:x:1>", "1.3)", ":-2)", ":1e9)"),
        *(":.)", ":nan)", ":1.2.3)", ":" + "9" * 400 + ")", "((((((((((", "))))))))))", ":1.1::", "-3::", "é", "\n"),
    )
)
PROMPTS = (
    b"a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
    b"masterpiece, 1girl {{{solo}}}, [[lowres]], 1.5::red hair::, BREAK blue sky \\(hill\\)",
    b"(worst quality, low quality:1.4), (bad-hands:0.8), ^_^, :(, x:1.3)",
)


@given(content=mutated(PROMPTS, EMPHASIS_TOKENS), syntax=st.sampled_from(["plain", "a1111", "novelai"]))
def test_a_prompt_of_any_text_has_a_reading_with_bounded_weights(content: bytes, syntax: Any) -> None:
    text = content.decode("utf-8", "surrogateescape")
    prompt = parse(text, syntax)
    assert all(abs(span.weight) <= LARGEST for section in prompt for span in section)
    assert sum(len(span.text) for section in prompt for span in section) <= len(text)
    for other in ("plain", "a1111", "novelai"):
        write(prompt, other)
    with suppress(ValueError):
        check_prompt(text, syntax)


LABEL = {
    "task_id": "a" * 16,
    "labeller": "p1",
    "verdict": "malformed_human",
    "body_shape": "other",
    "malformed_parts": ["face", "hands"],
    "note": "two\nlines",
    "created_at": "2026-01-01T00:00:00Z",
    "simulated": False,
}
PAIR_LABEL = {
    **{key: LABEL[key] for key in ("task_id", "labeller", "created_at", "simulated")},
    "choice": "tie",
}
LABEL_TOKENS = (
    *(b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\\u0000", b"\\ud800", b"[" * 50, b'{"a":' * 30, b"]", b"}", b'"', b","),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"2026-99-99T00:00:00Z", b"+99:99", b'"task_id":'),
    *(b"legit_human", b"pattern", b"\xef\xbb\xbf", b"\xf0\x9f\x98\x80", b"\x1b[31m", b" ", b'"a\\nb": 1,'),
)


def _lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


LABEL_FILES = (
    _lines(LABEL, {**LABEL, "task_id": "b" * 16}, {**LABEL, "labeller": "p2", "verdict": "pattern"}),
    _lines(PAIR_LABEL, {**PAIR_LABEL, "labeller": "p2", "choice": "left"}),
    _lines(LABEL),
)


@given(content=mutated(LABEL_FILES, LABEL_TOKENS))
def test_a_label_file_of_any_bytes_is_labels_or_an_input_error(folder: Path, content: bytes) -> None:
    path = folder / "labels.jsonl"
    path.write_bytes(content)
    for read in (read_labels, read_pair_labels):
        with refused_or_not():
            read(path)


def _shard(columns: dict[str, list[Any]]) -> bytes:
    kinds = {"image_id": Value("string"), "image": Image(), "pair_id": Value("int64"), "names": List(Value("string"))}
    return encode_table(columns, Features({name: kinds[name] for name in columns}), "mark")


IMAGE = encode_png(PillowImage.linear_gradient("L").resize((8, 8)).convert("RGB"))
IDS = [f"cfg-{k}" for k in range(4)]
SHARDS = (
    _shard({"image_id": IDS, "image": [{"bytes": IMAGE, "path": None}] * 4, "pair_id": [0, 1, 2, 3]}),
    _shard({"image_id": ["same"] * 500, "names": [["empty", "guide"], []] * 250}),
    _shard({"image_id": IDS[:1], "image": [{"bytes": IMAGE, "path": None}]}),
)
SHARD_TOKENS = (
    *(b"PAR1", b"\x15\x00", b"\x15\xfe\xff\xff\xff\xff\x0f", b"\xff" * 8, b"\0" * 8, b"\x19\x1c", b"\x18\x40", b"\x00"),
    *(b"\x89PNG\r\n\x1a\n", b"IHDR", b"\x7f\xff\xff\xff\x7f\xff\xff\xff", b"IDAT", b"IEND", b"zTXt", b"iCCP", b"tRNS"),
    *(
        b"\xff\xd8\xff\xe0",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"GIF89a",
        b"RIFF",
        b"ARROW1",
        b"\xc3\x28",
        b"bytes",
        b"image",
    ),
)


def sealed(content: bytes) -> bytes:
    """The shard with the checksum of what it holds now: a fault that its writer put there."""
    mark = KEY.encode() + b"\x18\x40"
    at = content.rfind(mark)
    return content if at < 0 or at + len(mark + ROOM.encode()) > len(content) else seal(content, at + len(mark))


@given(content=mutated(SHARDS, SHARD_TOKENS), with_checksum=st.booleans())
def test_a_shard_of_any_bytes_is_a_table_of_images_or_an_error(
    folder: Path, content: bytes, with_checksum: bool
) -> None:
    path = folder / "part-00000.parquet"
    path.write_bytes(sealed(content) if with_checksum else content)
    shard_fingerprint(path)
    for columns in (None, ["image_id"], ["image_id", "image"]):
        with refused_or_not():
            table = read_table(path, columns)
            table.drop_columns([name for name in ("image",) if name in table.column_names]).to_pylist()
            if columns == ["image_id", "image"]:
                # Told as an InputError with the name of its file by whoever reads images.
                with suppress(OSError):
                    list(decode_images(table))
