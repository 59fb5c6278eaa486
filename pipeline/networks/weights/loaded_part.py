"""A part of a checkpoint (its network, its autoencoder, a text encoder), loaded from a folder or from a single file."""

import os
import shutil
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file

from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint
from pipeline.networks.weights.transformer_file import without_prefix
from pipeline.networks.weights.weight_files import check_complete, weights_variant
from pipeline.networks.weights.weight_places import fetching

# Reading another scheduler's configuration as the training schedule is what happens here on purpose.
diffusers_logging.set_verbosity_error()
# Loading takes no time worth a bar, and a bar would be the only noise of a quiet stage.
diffusers_logging.disable_progress_bar()

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_part(kind: Any, checkpoint: Checkpoint, part: str, dtype: torch.dtype) -> Any:
    """The model of class `kind` (of diffusers or transformers) that a checkpoint has as `part`.

    Raises InputError where its files lack some of its weights, and what the libraries raise for damaged ones.
    """
    if checkpoint.in_file(part):
        try:
            return kind.from_single_file(
                without_prefix(load_file(checkpoint.path)) if part == "transformer" else str(checkpoint.path),
                config=str(checkpoint.config),
                subfolder=part,
                torch_dtype=dtype,
                local_files_only=True,
            )
        except NotImplementedError:  # torch cannot move parameters that the file did not fill
            raise InputError(
                f"{checkpoint.path} lacks some of the weights of the {part} that {checkpoint.config} describes; "
                "name its configuration in model.config, or download the file again"
            ) from None
    network, found = kind.from_pretrained(
        checkpoint.folder / part,
        use_safetensors=True,
        variant=weights_variant(checkpoint.folder, part),
        torch_dtype=dtype,
        local_files_only=True,
        output_loading_info=True,
    )
    check_complete(network, found["missing_keys"], checkpoint.folder / part)
    return network


def unloadable(checkpoint: Checkpoint, error: Exception) -> InputError:
    """What is said about a checkpoint that the libraries cannot load."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"{checkpoint.path} cannot be loaded ({reason}); {fetching(checkpoint.path)}")


def check_compiler() -> None:
    """Raise InputError where torch.compile will find no compiler at the first evaluation."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InputError(
            f"model.loading.compile needs a C++ compiler, and there is no '{compiler}'; "
            "install g++, name another in CXX, or leave compile out"
        )
