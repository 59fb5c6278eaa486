"""A tokenizer in CLIP's format whose words are the words of booru tags.

CLIP's tokenizer is a lower-cased byte-level BPE with `</w>` at the end of words. This one is trained on
tinybooru's captions and on the unwanted-content presets of the field, so a word of a tag is one token, and any
other text still has an encoding.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

CONTEXT_LENGTH = 48
VOCABULARY = 1024
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
    import json

    return [
        pair if isinstance(pair, list) else pair.split(" ")
        for pair in json.loads(tokenizer.to_str())["model"]["merges"]
    ]
