"""LoRAs that a prompt asks for: `<lora:name:0.8>`, as A1111 writes them.

A1111 does not read them as words: it takes them out of the prompt and adds the file to the network for the whole
generation. It does so in prompts alone; in a negative prompt they would be text (strict_check.py refuses them there).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.prompting.emphasis import LARGEST, Syntax
from pipeline.prompting.named_files import PICKLES, SAFE, named_files, unknown_name

LORAS = Path("loras")

_LORA = re.compile(r"<lora:(?P<arguments>[^<>]*)>")
_WEIGHT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")


@dataclass(frozen=True, order=True)
class PromptLora:
    """A LoRA by the name of its file in loras/, and the weights that network and text encoders get it at."""

    name: str
    weight: float
    text_weight: float

    @property
    def shown(self) -> str:
        """As A1111 writes it: the text encoders' weight first where the two differ."""
        both = [self.text_weight] if self.weight == self.text_weight else [self.text_weight, self.weight]
        return f"<lora:{':'.join([self.name, *(f'{weight:g}' for weight in both)])}>"

    @property
    def file(self) -> Path:
        """Its file in loras/. Raises ValueError where there is none, or a pickle."""
        known = named_files(LORAS)
        found = known.get(self.name.lower())
        if found is None:
            raise ValueError(f"{self.shown} names no file; {unknown_name(self.name, LORAS, known)}")
        if found.suffix in PICKLES:
            raise ValueError(
                f"{self.shown} names {found}, a pickle, which can run code when it is read; convert it to "
                f"{found.with_suffix(SAFE)}"
            )
        return found


def without_loras(prompt: str, syntax: Syntax) -> tuple[str, tuple[PromptLora, ...]]:
    """A prompt without its LoRAs, and these, sorted. Other syntaxes than A1111's have none.

    Raises ValueError for one without a name, with another weight than a number, or named twice.
    """
    if syntax != "a1111" or "<lora:" not in prompt:
        return prompt, ()
    loras = sorted(_read(match) for match in _LORA.finditer(prompt))
    for first, second in pairwise(loras):
        if first.name == second.name:
            raise ValueError(f"{second.shown} is the second of its name; write it once, with the sum of the weights")
    return _LORA.sub("", prompt).strip(), tuple(loras)


def loras_of(prompts: Sequence[str], syntax: Syntax) -> tuple[PromptLora, ...]:
    """The LoRAs that all of some prompts ask for. Raises ValueError where they do not ask for the same."""
    read = {prompt: without_loras(prompt, syntax)[1] for prompt in dict.fromkeys(prompts)}
    first, *others = read
    for prompt in others:
        if read[prompt] != read[first]:
            raise ValueError(
                f"{prompt[:60]!r} asks for {_listed(read[prompt])} and {first[:60]!r} for {_listed(read[first])}; a "
                "LoRA holds for all images of a study: write the same into every prompt, or name them in model.loras"
            )
    return read[first]


def _listed(loras: Sequence[PromptLora]) -> str:
    return " ".join(lora.shown for lora in loras) or "no LoRA"


def _read(match: re.Match[str]) -> PromptLora:
    name, *weights = (argument.strip() for argument in match["arguments"].split(":"))
    if not name or len(weights) > 2 or not all(map(_WEIGHT.fullmatch, weights)):
        raise ValueError(
            f"'{match[0][:80]}' is not a LoRA; write <lora:name:0.8>, or <lora:name:0.5:0.8> for the weights of text "
            "encoders and network"
        )
    numbers = [float(weight) for weight in weights] or [1.0]
    if max(map(abs, numbers)) > LARGEST:
        raise ValueError(f"'{match[0][:80]}' has a weight beyond {LARGEST:g}; write a smaller one")
    return PromptLora(name, weight=numbers[-1], text_weight=numbers[0])
