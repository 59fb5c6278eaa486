"""Arms that read images: the adapter, the image encoder and the networks fit each other, by headers alone."""

import json
from collections.abc import Iterable
from pathlib import Path

from pipeline.compatibility.described import described_network
from pipeline.errors import InputError
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.reference_images import encoder_digests, read_reference_images
from pipeline.networks.checkpoints import Checkpoint, locate
from pipeline.study.study import Study

_ENCODER = "CLIPVisionModelWithProjection"


def check_reference_images(study: Study, arm_names: Iterable[str], main: Checkpoint) -> None:
    """Raise InputError where an arm's reference images cannot be read, or its networks cannot read them."""
    names = [name for name in arm_names if study.arm(name).reference_images is not None]
    adapter = study.model.ip_adapter
    if not names or adapter is None:
        return
    if main.family.network != "unet":
        raise InputError(
            f"arms.{names[0]}.reference_images needs a UNet (sd, sdxl, pixel), and {main.config} is a "
            f"{main.family.network} ({main.family.name}); remove reference_images"
        )
    # Imported where there is an adapter: these take seconds.
    from pipeline.networks.perturbation import transformer_blocks
    from pipeline.networks.weights.adapter_file import check_adapter

    encoder_digests(adapter)  # whose files are there
    folder = Path(adapter.image_encoder)
    try:
        encoder = json.loads((folder / "config.json").read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"model.ip_adapter.image_encoder {folder}/config.json cannot be read ({error})") from None
    kinds = encoder.get("architectures") or []
    if _ENCODER not in kinds:
        raise InputError(
            f"model.ip_adapter.image_encoder {folder} is a {', '.join(kinds) or 'model without a name'}; adapters are "
            f"trained with a {_ENCODER}: name its folder"
        )
    unet = described_network(main)
    check_adapter(Path(adapter.file), unet, encoder, str(main.config))
    if adapter.in_guide and any(
        prediction.network == "guide" for name in names for prediction in guidance_of(study.arm(name)).predictions()
    ):
        guide = locate(study.model.guide, study.model.config_of_guide)
        try:
            check_adapter(Path(adapter.file), described_network(guide), encoder, f"the guide {guide.config}")
        except InputError as error:
            raise InputError(f"{error}, or set model.ip_adapter.in_guide: false") from None
    for name in names:
        arm = study.arm(name)
        assert arm.reference_images is not None
        read_reference_images(name, arm)
        try:
            transformer_blocks(unet, arm.reference_images.layers)
        except InputError as error:
            raise InputError(f"arms.{name}.reference_images.layers: {error}") from None
