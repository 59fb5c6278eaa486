"""Images that belong together: those of one prompt, which intervals and tests take as one."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Fewer prompts than this say nothing about prompts in general: of five, an exchange of signs has 16 outcomes, and no
# p-value below 0.06.
FEWEST = 10


def prompt_clusters(prompts: Sequence[str]) -> Tensor | None:
    """The number [N] int64 of each image's prompt, where prompts repeat; None where images are on their own.

    They are, too, where there are fewer than FEWEST prompts: what is inferred then holds for these prompts, and not for
    others. Of one prompt, or none, nothing is shared that another image would not share.
    """
    numbers = {prompt: k for k, prompt in enumerate(dict.fromkeys(prompts))}
    return torch.tensor([numbers[prompt] for prompt in prompts]) if FEWEST <= len(numbers) < len(prompts) else None
