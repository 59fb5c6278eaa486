"""Everything that configurations and file headers say against a study's networks, before any weight is read."""

from collections.abc import Iterable

from pipeline.compatibility.declarations import check_declarations
from pipeline.compatibility.inpainting import check_masks_are_read
from pipeline.compatibility.layers import check_layers
from pipeline.compatibility.parts import Part, check_autoencoder, check_inputs, check_samples, check_texts
from pipeline.compatibility.reference_images import check_reference_images
from pipeline.compatibility.texts import (
    check_built_in_post,
    check_degraded_texts,
    check_embedded_guidance,
    check_embeddings,
    check_texts_are_read,
)
from pipeline.compatibility.training_schedule import check_training_schedule
from pipeline.compatibility.transformers import check_texts_of_transformer, check_transformer
from pipeline.errors import InputError
from pipeline.generation.arm_guidance import guidance_of
from pipeline.networks.checkpoints import Checkpoint, check_fit, locate
from pipeline.study.study import Study


def check_networks(study: Study, arm_names: Iterable[str]) -> None:
    """Raise InputError where a network of the study cannot be sampled from, or its parts do not fit each other.

    A guide counts where one of the arms asks for it, and the canvas of training where an arm sets none.
    Reads configurations and headers alone.
    """
    model, names = study.model, _with_starts(study, arm_names)
    main = locate(model.main, model.config)
    if main.settings(main.family.network) is None:
        return  # missing files are named where files are looked for (weight_files.py)
    own = Part("model.main", main, "vae")
    vae = own if model.vae is None else Part("model.vae", locate(model.vae, model.config), "vae")
    _check_network("model.main", main, "model.config")
    check_autoencoder(own, vae)
    _check_samples("model.main", main, vae)
    check_masks_are_read(study, names, main)
    check_reference_images(study, names, main)
    encoders = {part: Part("model.main", main, part) for part in main.family.text_parts}
    if model.text_encoder is not None:
        swapped = locate(model.text_encoder, model.config)
        encoders["text_encoder"] = Part("model.text_encoder", swapped, "text_encoder")
    network = Part("model.main", main, main.family.network)
    if main.family.network == "unet":
        check_texts(network, encoders)
    else:
        check_texts_of_transformer(network, encoders)
    check_layers("model.main", main, "model.config")
    for name in names:
        if study.arm(name).canvas is None:
            _check_trained_canvas(name, main)
    if any(
        prediction.network == "guide" for name in names for prediction in guidance_of(study.arm(name)).predictions()
    ):
        guide = locate(model.guide, model.config_of_guide)
        check_fit(main, guide)
        _check_network("model.guide", guide, "model.guide_config", with_parts=False)
        _check_samples("model.guide", guide, vae)
        check_layers("model.guide", guide, "model.guide_config")
    check_embedded_guidance(study, names, main)
    check_built_in_post(study, names, main)
    check_degraded_texts(study, names, main)
    check_texts_are_read(study, names, main)
    check_embeddings(study, names, main, [part.checkpoint for part in encoders.values()])


def _with_starts(study: Study, arm_names: Iterable[str]) -> list[str]:
    """The arms, and those whose images they start from."""
    names = dict.fromkeys(arm_names)
    starts = [study.arm(name).image_to_image for name in names]
    return list(names | dict.fromkeys(start.start for start in starts if start is not None and not start.is_folder))


def _check_network(key: str, checkpoint: Checkpoint, config_key: str, with_parts: bool = True) -> None:
    check_declarations(key, checkpoint, config_key, with_parts)
    check_training_schedule(key, checkpoint)
    check_inputs(key, checkpoint)


def _check_samples(key: str, checkpoint: Checkpoint, vae: Part) -> None:
    if checkpoint.family.network == "unet":
        check_samples(key, checkpoint, vae)
    else:
        check_transformer(Part(key, checkpoint, checkpoint.family.network), vae)


def _check_trained_canvas(arm_name: str, main: Checkpoint) -> None:
    _ = main.factor  # of what has no autoencoder, this says what is wrong
    try:
        _ = main.canvas
    except InputError as error:
        raise InputError(f"arms.{arm_name}: {error}") from None
