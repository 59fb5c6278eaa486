"""A tokenizer in CLIP's format whose words are the words of booru tags.

CLIP's tokenizer is a lower-cased byte-level BPE with `</w>` at the end of words. This one is trained on
tinybooru's captions and on the unwanted-content presets of the field, so a word of a tag is one token, and any
other text still has an encoding.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from pipeline.prompting.presets import NEGATIVE_PRESETS

CONTEXT_LENGTH = 48
VOCABULARY = 1024
# Their words become tokens; often enough to be whole ones.
PRESETS_IN_VOCABULARY = (
    "tinybooru", "novelai-light", "novelai-heavy", "novelai-human-focus", "animagine", "field-note-novelai",
)  # fmt: skip
BEGIN, END = "<|startoftext|>", "<|endoftext|>"

# CLIP's own split: letters, single digits, runs of punctuation (radford2021, `simple_tokenizer.py`).
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Train on captions; deterministic for the same captions in the same order."""
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(alphabet),
        end_of_word_suffix="</w>",
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in _merges(tokenizer)]
    # CLIP's vocabulary order: bytes, bytes at a word's end, merges, specials; END is also the padding.
    letters = sorted(alphabet)
    vocabulary = [*letters, *(f"{b}</w>" for b in letters), *("".join(pair) for pair in merges), BEGIN, END]
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=CONTEXT_LENGTH)


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    return [
        pair if isinstance(pair, list) else pair.split(" ")
        for pair in json.loads(tokenizer.to_str())["model"]["merges"]
    ]


def world_tokenizer(folder: Path, captions: Sequence[str]) -> CLIPTokenizer:
    """The tokenizer of captions and of the presets of the field, trained once and kept in `folder`/tokenizer.

    Ties between merges are broken by chance, so a run that is resumed needs the one that it began with.
    """
    kept = folder / "tokenizer"
    if not (kept / "tokenizer.json").exists():
        texts = [NEGATIVE_PRESETS[name].text for name in PRESETS_IN_VOCABULARY] * 50
        train_tokenizer([*captions, *texts]).save_pretrained(kept)
    found: CLIPTokenizer = CLIPTokenizer.from_pretrained(kept)
    return found
