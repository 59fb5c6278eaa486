"""Training captions as token ids, a batch at a time: what `corpus.caption` says and the tokenizer gives, vectorised."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import CLIPTokenizer

from models.tinybooru.corpus import JUDGEMENT_DROPOUT, ONLY_JUDGEMENT, SHUFFLED, STRUCTURE_DROPOUT
from models.tinybooru.tokenizer import CONTEXT_LENGTH
from pipeline.tinybooru.flaws import FLAWS, IMAGE_FLAWS, QUALITIES, STRUCTURE_FLAWS

WHOLE_PROMPT_DROPOUT = 0.1
TAG_DROPOUT = 0.1


class CaptionTable:
    """Tag lists as a table of numbers, and captions of its rows."""

    def __init__(self, tags: Sequence[Sequence[str]], tokenizer: CLIPTokenizer):
        names = sorted({tag for row in tags for tag in row})
        place = {tag: k for k, tag in enumerate(names)}
        self.longest = max(map(len, tags))
        self.table = np.full((len(tags), self.longest), -1, np.int32)  # [N, T], -1 beyond the last tag
        for k, row in enumerate(tags):
            self.table[k, : len(row)] = [place[tag] for tag in row]
        self.begin, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        comma = tokenizer(",").input_ids[1:-1]
        ids = [[*tokenizer(tag).input_ids[1:-1], *comma] for tag in names]
        # Tokens of each tag with its comma, [tags, L], -1 beyond.
        self.tokens = np.full((len(names) + 1, max(map(len, ids))), -1, np.int32)
        for k, row_ids in enumerate(ids):
            self.tokens[k, : len(row_ids)] = row_ids

        def among(group: Sequence[str]) -> npt.NDArray[np.bool_]:
            return np.array([*(tag in group for tag in names), False])

        self.judgement = among((*QUALITIES, *FLAWS))
        self.judged = among((*QUALITIES, *IMAGE_FLAWS))
        self.structure = among(STRUCTURE_FLAWS)
        self.rows_of = {tag: np.flatnonzero((self.table == k).any(1)) for tag, k in place.items()}

    def captions(
        self, rows: npt.NDArray[np.int64], rng: np.random.Generator, never_empty: int = 0
    ) -> npt.NDArray[np.int64]:
        """Token ids [B, CONTEXT_LENGTH] of training captions of `rows` [B]; the first `never_empty` keep something."""
        tags = self.table[rows]
        there = tags >= 0
        draw, chance = rng.random((len(rows), 4)), rng.random(tags.shape)
        structure = self.structure[tags] & there
        luckiest = np.where(structure, chance, -1.0).max(1, keepdims=True)
        named = structure & ((chance >= STRUCTURE_DROPOUT) | (chance == luckiest))
        judged = self.judged[tags] & (draw[:, 2:3] >= JUDGEMENT_DROPOUT)
        looks = ~self.judgement[tags] & (chance >= TAG_DROPOUT)
        kept = there & (named | judged | looks)
        only = draw[:, 1] < ONLY_JUDGEMENT
        kept[only] = (there & self.judgement[tags])[only]
        empty = draw[:, 0] < WHOLE_PROMPT_DROPOUT
        empty[:never_empty] = False
        kept[empty] = False
        order = rng.random(tags.shape)
        shuffled = np.argsort(np.where((draw[:, 3] < SHUFFLED)[:, None], order, np.arange(tags.shape[1])), axis=1)
        return self.spell(np.take_along_axis(np.where(kept, tags, -1), shuffled, axis=1))

    def spell(self, tags: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Token ids [B, CONTEXT_LENGTH] of tag numbers [B, T], -1 where there is none."""
        pieces = self.tokens[tags].reshape(len(tags), -1)  # the last row of the table, all -1, answers for -1
        packed = np.take_along_axis(pieces, np.argsort(pieces < 0, axis=1, kind="stable"), axis=1)
        length = (pieces >= 0).sum(1)
        ids = np.full((len(tags), CONTEXT_LENGTH), self.end, np.int64)
        room = min(CONTEXT_LENGTH - 2, packed.shape[1])
        ids[:, 1 : 1 + room] = packed[:, :room]
        # The last comma goes, and what was beyond the end.
        ids[np.arange(CONTEXT_LENGTH)[None] >= np.maximum(length, 1)[:, None]] = self.end
        ids[:, 0] = self.begin
        return ids
