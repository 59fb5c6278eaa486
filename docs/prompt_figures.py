"""Writes what negative prompts do to the embedded model's images: `python -m docs.prompt_figures`, a minute.

The figures are between two comments in docs/prompts.md, with the digest of the networks that they were measured on;
a test compares it with that of the networks in the repository.
"""

from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from numpy.typing import NDArray

from docs.written_block import replaced
from pipeline.compose import compose
from pipeline.errors import run_stage
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import arm_texts
from pipeline.layout import CONF
from pipeline.preflight import study_digests
from pipeline.study.study import Study, parse_study

PAGE = Path("docs/prompts.md")
COMMAND = "python -m docs.prompt_figures"
IMAGES = 32


def study_of(name: str) -> Study:
    """A study of conf/study."""
    return parse_study(compose(CONF, [f"study={name}"]), f"study={name}")


def images_of(study: Study, arms: list[str]) -> dict[str, NDArray[np.float64]]:
    """The first images [N, H, W, 3] of some arms."""
    model, found = LoadedModel(study, torch.device("cpu")), {}
    for arm in arms:
        texts = {text: prompts[:IMAGES] for text, prompts in arm_texts(study, arm).items()}
        seeds = list(range(study.generate.first_seed, study.generate.first_seed + IMAGES))
        drawn = ArmGenerator(study, arm, torch.device("cpu"), model).draw(texts, seeds)
        found[arm] = np.stack([np.asarray(image, np.float64) for image in drawn.images])
    return found


def figures() -> str:
    """The block of docs/prompts.md."""
    plain, pure = study_of("plain_conditional"), study_of("pure_negative")
    own = images_of(plain, list(plain.arms))
    empty = images_of(pure, ["unguided", "scale_2", "tiny_weights"])
    change = {name: float(np.abs(images - own[plain.baseline]).mean()) for name, images in own.items()}
    pushed = {name: float(np.abs(images - empty["unguided"]).mean()) for name, images in empty.items()}
    equal = max(change[name] for name in ("cfg_scale_one", "negative_scale_one", "positive_is_negative"))
    same = (
        "the unguided images, value for value" if equal == 0 else f"images at most {equal:.2g} of 255 from unguided's"
    )
    left = pushed["tiny_weights"] / pushed["scale_2"]
    switched = (
        "there, tiny weights do not switch a negative prompt off"
        if left > 0.5  # of the change
        else "there, tiny weights take most of a negative prompt away"
    )
    digests = study_digests(plain)
    text = (
        f"On the embedded model ({IMAGES} images, networks {digests['main']} and {digests['guide']}): scale 1, with an "
        f"empty or a negative prompt, and a prompt as its own negative prompt at scale 3 gave {same}; a negative "
        f"prompt at 1.5 changed them by {change['negative']:.0f} of 255 on average. A pure negative prompt at scale 2 "
        f"changed them by {pushed['scale_2']:.1f}, and by {pushed['tiny_weights']:.1f} with every tag at weight 0.0001 "
        f"(the commas between the tags keep weight 1): {switched}."
    )
    return "\n".join(wrap(text, 118))


def main() -> None:
    PAGE.write_text(replaced(PAGE.read_text("utf-8"), PAGE, COMMAND, figures()), "utf-8")
    print(f"{PAGE}: figures of {IMAGES} images per arm")


if __name__ == "__main__":
    run_stage(main)
