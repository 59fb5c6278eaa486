"""What texts call by name: embeddings as A1111 and ComfyUI do, LoRAs as A1111 does."""

from pathlib import Path

import pytest

from pipeline.prompting.chunks import WeightedToken, cut
from pipeline.prompting.embedding_names import EMBEDDINGS, embeddings_in, known_embeddings, pieces
from pipeline.prompting.extra_networks import PromptLora, loras_of, without_loras

NAMES = ("easynegative", "bad", "bad-hands-5", "ng_deep v1.5")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("EasyNegative", ["easynegative"]),
        ("lowres,EASYNEGATIVE,bad", ["easynegative", "bad"]),
        ("embedding:EasyNegative, x", ["easynegative"]),
        ("bad-hands-5 and bad", ["bad-hands-5", "bad"]),
        ("ng_deep v1.5", ["ng_deep v1.5"]),
        ("badly, not-bad, bad_hands, easynegative2", []),
        ("embedding:bads", []),
        ("", []),
    ],
)
def test_a_name_is_a_whole_word_and_the_longest_counts(text, found):
    read = list(pieces(text, NAMES))
    assert [piece.text for piece in read if piece.is_embedding] == found
    words = "".join(piece.text for piece in read if not piece.is_embedding)
    assert len(words) + sum(map(len, found)) == len(text.replace("embedding:", "" if found else "embedding:"))


def test_without_files_a_text_is_one_piece():
    assert list(pieces("bad", ())) == [("bad", False)]


def files(*names: str) -> dict[str, Path]:
    return {name: EMBEDDINGS / f"{name}.safetensors" for name in names}


def test_names_are_found_behind_weights_and_breaks():
    known = files("bad", "worse", "other")
    assert embeddings_in(["(bad:1.3) BREAK [x, ((Worse))]"], "a1111", known) == files("bad", "worse")


@pytest.mark.parametrize("syntax", ["plain", "novelai"])
def test_other_syntaxes_call_nothing(syntax):
    assert embeddings_in(["bad, embedding:none"], syntax, files("bad")) == {}
    assert without_loras("a <lora:x:1>", syntax) == ("a <lora:x:1>", ())


def test_a_missing_name_is_said_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"embedding:bda names no file; put embeddings/bda\.safetensors there; did you"
    ):
        embeddings_in(["x, embedding:bda"], "a1111", files("bad"))


def test_a_pickle_counts_where_there_is_no_safe_file_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    EMBEDDINGS.mkdir()
    for name in ("a.pt", "a.safetensors", "b.pt", "notes.txt"):
        (EMBEDDINGS / name).touch()
    assert known_embeddings() == {"a": EMBEDDINGS / "a.safetensors", "b": EMBEDDINGS / "b.pt"}


@pytest.mark.parametrize(
    ("prompt", "rest", "lora"),
    [
        ("a cat <lora:style>", "a cat", PromptLora("style", 1.0, 1.0)),
        ("<lora:style:0.8>, a cat", ", a cat", PromptLora("style", 0.8, 0.8)),
        ("a <lora: my style v1.5 : -.5 > cat", "a  cat", PromptLora("my style v1.5", -0.5, -0.5)),
        ("a cat<lora:style:0.5:0.8>", "a cat", PromptLora("style", weight=0.8, text_weight=0.5)),
    ],
)
def test_a_lora_is_taken_out_of_the_prompt(prompt, rest, lora):
    assert without_loras(prompt, "a1111") == (rest, (lora,))
    assert without_loras(lora.shown, "a1111") == ("", (lora,))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<lora:>", "is not a LoRA; write <lora:name:0.8>"),
        ("<lora:x:1:2:3>", "is not a LoRA"),
        ("<lora:x:lbw=1>", "is not a LoRA"),
        ("<lora:x:5000>", "has a weight beyond 1000"),
        ("<lora:x:1> <lora:x:0.5>", "is the second of its name"),
    ],
)
def test_a_lora_that_is_none_is_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        without_loras(prompt, "a1111")


def test_prompts_ask_for_the_same_loras_in_any_order():
    assert loras_of(["a <lora:x:1> <lora:y:1>", "<lora:y><lora:x> b"], "a1111") == (
        PromptLora("x", 1.0, 1.0),
        PromptLora("y", 1.0, 1.0),
    )
    with pytest.raises(
        ValueError, match=r"'b' asks for no LoRA and 'a <lora:x:1>' for <lora:x:1>; a LoRA holds for all"
    ):
        loras_of(["a <lora:x:1>", "b"], "a1111")


def test_an_embedding_that_does_not_fit_begins_the_next_chunk():
    words = [WeightedToken(token, 1.0) for token in range(4)]
    own = [WeightedToken(-3 + k, 1.0, 3 - k) for k in range(3)]
    assert cut([[*words, *own, *words]], 6, comma=None) == [tuple(words), (*own, *words[:3]), tuple(words[3:])]
    assert cut([[*words[:3], *own]], 6, comma=None) == [(*words[:3], *own)]
    # The comma is two tokens ahead: what stands behind it moves along, as A1111 moves words.
    assert cut([[*words, *own]], 4, comma=1) == [tuple(words[:2]), tuple(words[2:]), tuple(own)]
