"""Data is read as data: what would run code is not called, but where a line below says why."""

import ast
from collections.abc import Iterator

from repository_copy import ROOT

# Ruff's S rules (pyproject.toml) find pickle, eval, exec, yaml.load, shells and unverified TLS. These they do not know.
UNSAFE_ARGUMENTS = {"trust_remote_code", "allow_pickle", "allow_dangerous_deserialization"}
# Checkpoints that are published as pickles become safetensors by a command of their own; torch's restricted unpickler
# reads tensors alone, and a test gives it a pickle that would run code (test_preference.py).
CONVERTERS = {"eval/features/efficientnet.py", "eval/scorers/preference.py", "eval/scorers/aesthetic.py"}
# What `from_pretrained` reads for these is text: settings and vocabularies.
WITHOUT_WEIGHTS = (
    "BertTokenizerFast",
    "CLIPProcessor",
    "CLIPTokenizer",
    "DDPMScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "_TOKENIZERS[part.kind]",
    "T5TokenizerFast",
    "kind.config_class",
)


def calls() -> Iterator[tuple[str, ast.Call]]:
    for folder in ("pipeline", "eval", "labeling", "models", "benchmarks", "docs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT).as_posix(), node


def arguments(call: ast.Call) -> dict[str, object]:
    return {k.arg: k.value.value if isinstance(k.value, ast.Constant) else ... for k in call.keywords if k.arg}


def test_no_call_asks_to_run_code_that_comes_with_data() -> None:
    found = [(path, call.lineno) for path, call in calls() if UNSAFE_ARGUMENTS & set(arguments(call))]
    assert not found


def test_pickles_are_read_by_the_converters_alone_and_as_tensors_alone() -> None:
    loads = [
        (path, arguments(call)) for path, call in calls() if ast.unparse(call.func) in ("torch.load", "pickle.load")
    ]
    assert {path for path, _ in loads} == CONVERTERS
    assert all(given.get("weights_only") is True for _, given in loads)


def test_downloaded_state_dicts_are_tensors_alone_and_their_digest_is_checked() -> None:
    fetched = [arguments(call) for _, call in calls() if ast.unparse(call.func).endswith("load_state_dict_from_url")]
    assert fetched
    assert all(given.get("weights_only") is True and given.get("check_hash") is True for given in fetched)


def test_weights_of_a_network_are_read_from_safetensors_alone() -> None:
    """`from_pretrained` of a network falls back to pickles unless it is told not to."""
    networks = [
        (path, call.lineno, arguments(call))
        for path, call in calls()
        if isinstance(call.func, ast.Attribute) and call.func.attr == "from_pretrained"
        if ast.unparse(call.func.value) not in WITHOUT_WEIGHTS
    ]
    assert networks
    assert [place for *place, given in networks if given.get("use_safetensors") is not True] == []
    # Training and benchmarks read what they made themselves.
    stages = [network for network in networks if not network[0].startswith(("models/", "benchmarks/"))]
    assert [place for *place, given in stages if given.get("local_files_only") is not True] == []
