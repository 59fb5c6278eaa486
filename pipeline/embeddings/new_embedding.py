"""A new embedding: under which name texts can call it, and for which networks it can be made."""

import re
from pathlib import Path

from pipeline.errors import InputError
from pipeline.generation.shard_plan import main_checkpoint
from pipeline.networks.checkpoints import Checkpoint
from pipeline.prompting.embedding_names import EMBEDDINGS, known_embeddings
from pipeline.study.study import Study

_NAME = re.compile(r"[\w-]([\w .-]*[\w-])?")


def new_path(name: str) -> Path:
    """The file of a new embedding.

    Raises InputError where texts could not call it by its name, and where there is a file of that name already.
    """
    if _NAME.fullmatch(name) is None:
        raise InputError(f"'{name}' is not a name that a text can call; take letters, digits, - and _")
    try:
        known = known_embeddings().get(name.lower())
    except ValueError as error:
        raise InputError(str(error)) from None
    if known is not None:
        raise InputError(f"{known} is there already; take another name, or delete it")
    return EMBEDDINGS / f"{name}.safetensors"


def reading_checkpoint(study: Study) -> Checkpoint:
    """The study's main network. Raises InputError where it is of a family that takes no embeddings."""
    main = main_checkpoint(study.model)
    if not main.family.reads_clip_alone:
        raise InputError(f"{main.config} ({main.family.name}) reads more of a text than CLIP's tokens; name SD or SDXL")
    return main
