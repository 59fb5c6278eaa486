"""What an image is of, by CLIP's zero-shot classification (Radford et al., 2103.00020, section 3.1).

The four kinds are those that people choose from when they label.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.study.scorers import SINGLE_FILES

KINDS = ("legit_human", "malformed_human", "object_or_scenery", "pattern")


def kind_probabilities(image_embeddings: Tensor, prompt_embeddings: Mapping[str, Tensor], logit_scale: float) -> Tensor:
    """The chance of each of KINDS, [N, 4] float64, rows sum to 1.

    `image_embeddings` [N, D]; `prompt_embeddings` holds the [P, D] of each kind's prompts, as many or as few as wanted;
    none need be normalised. A kind's chance is the mean over its prompts of exp(logit_scale cos), each kind being as
    likely beforehand: CLIP knows captions rather than kinds, and a kind is a mixture of the captions it may have.
    """
    images = torch.nn.functional.normalize(image_embeddings.double(), dim=1)
    logits = []
    for kind in KINDS:
        prompts = torch.nn.functional.normalize(prompt_embeddings[kind].double(), dim=1)
        logits.append((logit_scale * images @ prompts.T).logsumexp(1) - math.log(len(prompts)))
    return torch.stack(logits, 1).softmax(1)


def load_kind_prompts(path: Path) -> dict[str, list[str]]:
    """The prompts of each kind from a JSON file {kind: [prompt, ...]}. Raises InputError."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(SINGLE_FILES["kind_prompts"].faults(path)[path]) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error}); it maps each of {', '.join(KINDS)} to its prompts") from None
    if not isinstance(content, dict) or sorted(content) != sorted(KINDS):
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path} holds {found or 'nothing'}; it must map exactly {', '.join(KINDS)} to their prompts")
    for kind, prompts in content.items():
        if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) and p for p in prompts):
            raise InputError(f"{path}: the prompts of '{kind}' must be a list of at least one text")
    return {kind: list(content[kind]) for kind in KINDS}
