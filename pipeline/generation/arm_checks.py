"""That every arm of a study can be drawn: looked at before the first picture, not when an arm's turn comes."""

from collections.abc import Mapping

from pipeline.errors import InputError
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.shard_plan import DEVICES, arm_texts, plan_shards, replaced_parts
from pipeline.networks.checkpoints import Checkpoint, locate
from pipeline.networks.weight_files import text_parts
from pipeline.prompting.text_settings import check_clip_skip
from pipeline.study.study import Study
from pipeline.study.weaken import DropLayers


def check_arms(study: Study) -> None:
    """Raise InputError where an arm does not fit the study's networks, prompts or start pictures.

    Weights are not loaded: what they are is read from configurations.
    """
    main = locate(study.model.main, study.model.config)
    for name in study.arms:
        plan_shards(study, name, arm_texts(study, name), DEVICES[0])
    swapped = replaced_parts(study.model).get("text_encoder")
    encoders = dict.fromkeys(text_parts(main), main)
    if swapped is not None:
        encoders["text_encoder"] = locate(swapped, study.model.config)
    for part, checkpoint in encoders.items():
        settings = checkpoint.settings(part) or {}
        if "num_hidden_layers" in settings:  # else transformers' own default
            check_clip_skip(study.text.clip_skip, int(settings["num_hidden_layers"]), len(encoders))
    _check_layers(study, main)


def _check_layers(study: Study, main: Checkpoint) -> None:
    asked: dict[str, tuple[Checkpoint, tuple[str, ...]]] = {}
    for name, arm in study.arms.items():
        predictions = guidance_of(arm).predictions()
        if any(prediction.perturbation for prediction in predictions):
            asked[f"arms.{name}.perturb.layers"] = main, arm.perturb.layers
        if isinstance(study.model.weaken, DropLayers) and any(p.network == "guide" for p in predictions):
            guide = locate(study.model.guide, study.model.config)
            asked["model.weaken.layers"] = guide, study.model.weaken.layers
    if asked:
        _check_blocks(asked)


def _check_blocks(asked: Mapping[str, tuple[Checkpoint, tuple[str, ...]]]) -> None:
    # Their import takes ten seconds, which studies without such arms do not wait for.
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel

    from pipeline.networks.perturbation import transformer_blocks

    for key, (checkpoint, layers) in asked.items():
        try:
            with init_empty_weights():
                unet = UNet2DConditionModel.from_config(checkpoint.settings("unet"))
        except Exception as error:  # diffusers raises many kinds for a configuration that describes no UNet
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{checkpoint.config}/unet/config.json describes no UNet ({reason})") from None
        try:
            transformer_blocks(unet, layers)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
