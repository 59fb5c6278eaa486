"""Transformers that a file holds: their names without ComfyUI's prefixes, and what diffusers makes of original names.

ComfyUI writes a network behind `model.diffusion_model.` in a whole checkpoint and behind `diffusion_model.` alone.
diffusers knows the first for some families and neither for FLUX.2 and Qwen-Image.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
Value = TypeVar("Value")


def without_prefix(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """The tensors of a file's transformer by their names after the prefix; all of a file that has no prefix.

    Where there is one, what stands outside it is of other parts (text encoders, an autoencoder).
    """
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in tensors)), "")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def in_diffusers_names(
    tensors: Mapping[str, Any], described: Collection[str], kind: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The tensors of a file's transformer of class `kind` under diffusers' names, by diffusers' own conversion.

    `described` are the names of the network that `settings` describe; a file that has them is left as it is. What the
    conversion leaves behind keeps its name. Raises what diffusers raises for names and shapes that it does not know.
    """
    # Imported where a file is converted: it takes seconds.
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    left = without_prefix(tensors)
    if left.keys() == set(described):
        return left
    converted = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"](checkpoint=left, config=dict(settings))
    return {**left, **converted}
