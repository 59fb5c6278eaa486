"""Networks as their configurations describe them, without storage for their weights."""

from typing import Any

from pipeline.errors import InputError
from pipeline.generation.shard_plan import replaced_parts
from pipeline.networks.checkpoints import Checkpoint, locate
from pipeline.study.study import Study


def described_network(checkpoint: Checkpoint) -> Any:
    """The network that a configuration describes, without storage for its weights. Raises InputError."""
    from accelerate import init_empty_weights

    part = checkpoint.family.network
    try:
        with init_empty_weights():
            return checkpoint.family.model_class.from_config(checkpoint.settings(part))
    except Exception as error:  # diffusers raises many kinds for a configuration that describes no network
        reason = " ".join(str(error).split())[:200]
        what = "UNet" if part == "unet" else part
        raise InputError(f"{checkpoint.config}/{part}/config.json describes no {what} ({reason})") from None


def described_texts(study: Study, main: Checkpoint) -> list[Any]:
    """The text encoders of a family whose CLIPs LoRAs change, without storage for their weights; none of another."""
    if not main.family.reads_clip:
        return []
    import torch  # slow, and studies without LoRAs have no use for it

    swapped = replaced_parts(study.model).get("text_encoder")
    encoder = main.family.load_texts(
        main,
        torch.device("cpu"),
        study.text,
        swapped=None if swapped is None else locate(swapped, study.model.config),
        weights=False,
    )
    return [tower.model for tower in encoder.towers]
