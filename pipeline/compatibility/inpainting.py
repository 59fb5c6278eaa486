"""Arms and networks agree on masks: a UNet that was trained to inpaint is given one, and blends its edge by itself."""

from collections.abc import Iterable

from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint
from pipeline.study.study import Study


def check_masks_are_read(study: Study, arm_names: Iterable[str], main: Checkpoint) -> None:
    """Raise InputError where an arm gives a network that reads masks none, or one with a soft edge."""
    if not main.reads_masks:
        return
    channels = (main.settings("unet") or {})["in_channels"]
    reads = f"the UNet of {main.config} reads a mask and an image (in_channels {channels})"
    for name in arm_names:
        how = study.arm(name).inpaint
        if how is None:
            raise InputError(
                f"arms.{name} has no inpaint, and {reads}; set inpaint and image_to_image.from a folder of shards, or "
                "take a plain text-to-image checkpoint"
            )
        if how.feather:
            raise InputError(
                f"arms.{name}.inpaint.feather is {how.feather:g}, but {reads} and was trained on masks without grey; "
                "remove feather"
            )
