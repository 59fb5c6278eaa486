"""Every weight of a network's files has its place in the network that the configuration describes, and the reverse.

Loaders leave out weights for which a network has no place, so a file of SDXL would generate with the fewer layers of a
distilled SDXL's configuration. Names and shapes are compared, which the headers give; no weight is read.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.compatibility.declarations import headers, way_out
from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint
from pipeline.networks.weights.identification import held_parts
from pipeline.networks.weights.transformer_file import in_diffusers_names
from pipeline.networks.weights.weight_files import incomplete

_SHOWN = 1
_WORDS = {"unet": "UNet", "transformer": "transformer"}


def check_layers(key: str, checkpoint: Checkpoint, config_key: str) -> None:
    """Raise InputError where the network of `checkpoint`, named in `key`, has other layers than its configuration."""
    family = checkpoint.family
    part = family.network
    settings = checkpoint.settings(part)
    # Tensors without elements are marks (declarations.py).
    shapes = {name: shape for one in headers(checkpoint) for name, shape in one.shapes.items() if 0 not in shape}
    if settings is None or not shapes:
        return
    if checkpoint.is_file and part == "transformer" and not family.network_alone and part not in held_parts(shapes):
        return  # named where its parts are looked for (identification.py)
    # Imported where there are weights to compare: it takes seconds.
    from accelerate import init_empty_weights
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    place = f"{key} {checkpoint.path}"
    try:
        with init_empty_weights():
            network = family.model_class.from_config(settings)
        held: Mapping[str, tuple[int, ...]] = shapes
        if checkpoint.is_file and part == "unet":
            held = convert_ldm_unet_checkpoint(shapes, settings)
        elif checkpoint.is_file:
            held = _converted(place, shapes, network.state_dict(), family.model_name, settings)
    except InputError:
        raise
    except Exception as error:  # diffusers raises many kinds for a configuration that describes no network
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{place}: {checkpoint.config / part / 'config.json'} does not describe a network with these weights "
            f"({reason}); {way_out(checkpoint, config_key)}"
        ) from None
    if not held:
        return  # so is a file without a UNet
    described = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    lacking = sorted(described.keys() - held.keys())
    if lacking and held.keys() <= described.keys():
        if checkpoint.is_file:
            raise InputError(
                f"{place} lacks {_counted(lacking)} of the {len(described)} of the {_WORDS[part]} that "
                f"{checkpoint.config} describes; {way_out(checkpoint, config_key)}, or download the file again"
            )
        raise incomplete(lacking, len(described), type(network).__name__, checkpoint.path / part)
    fault = _fault(described, held)
    if fault:
        raise InputError(f"{place} contradicts {checkpoint.config}: {fault}; {way_out(checkpoint, config_key)}")


def _converted(
    place: str,
    shapes: Mapping[str, tuple[int, ...]],
    described: Collection[str],
    kind: str,
    settings: Mapping[str, Any],
) -> Mapping[str, tuple[int, ...]]:
    """The shapes of a file's weights under diffusers' names, by diffusers' own conversion of tensors without values.

    Raises InputError where it does not know their names or their shapes.
    """
    import torch

    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    try:
        found = in_diffusers_names(tensors, described, kind, settings)
    except Exception as error:  # diffusers raises many kinds for files that it was not written for
        missing = isinstance(error, KeyError) and error.args
        reason = f"it lacks {error.args[0]}" if missing else " ".join(str(error).split())[:200]
        raise InputError(
            f"{place} holds names or shapes that diffusers does not convert to those of {kind} ({reason}); name a "
            "file in diffusers' names, or a folder in diffusers' layout"
        ) from None
    return {name: tuple(tensor.shape) for name, tensor in found.items()}


def _fault(described: Mapping[str, tuple[int, ...]], held: Mapping[str, tuple[int, ...]]) -> str:
    if more := held.keys() - described.keys():
        return f"it holds {_counted(more)} that the configuration has no place for"
    for name, shape in described.items():
        if held[name] != shape:
            return f"{name} is {_shape(held[name])}, the configuration describes {_shape(shape)}"
    return ""


def _counted(names: Collection[str]) -> str:
    first = sorted(names)[0]
    return f"{len(names)} weight{'s' if len(names) > 1 else ''} ({first}{' ...' if len(names) > _SHOWN else ''})"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
