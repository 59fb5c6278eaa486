"""LoRAs fit the networks that they are added to."""

from dataclasses import replace
from pathlib import Path

from pipeline.compatibility.described import described_network, described_texts
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.called_files import added_loras
from pipeline.generation.shard_plan import main_checkpoint
from pipeline.networks.checkpoints import Checkpoint, locate
from pipeline.study.study import Study
from pipeline.study.weaken import WEAKEN, Lora


def lora_changes(study: Study) -> list[str]:
    """What the LoRAs of main network and guide change, in words. Raises InputError where one does not fit.

    That of a guide which no arm uses is not looked at.
    """
    model, said = study.model, []
    with_guide = any(
        prediction.network == "guide" for arm in study.arms.values() for prediction in guidance_of(arm).predictions()
    )
    if loras := added_loras(study) if study.generated else ():
        from pipeline.networks.weights.lora import read_main

        main = main_checkpoint(model)
        network, texts = described_network(main), described_texts(study, main)
        for lora in loras:
            content = read_main(lora, network, texts)
            counts = " and ".join(str(len(own)) for own in content.texts)
            of_texts = f", of its text encoders: {counts}" if any(content.texts) else ""
            why = (
                "embeddings in the file, and T5's" if content.texts else "the main network's texts are its checkpoint's"
            )
            said.append(
                _said(lora.where, "the main network's", main, len(content.layers), of_texts, content.left_out, why)
            )
        if model.loras_in_guide and with_guide:
            guide = described_network(locate(model.guide, model.config_of_guide))
            for lora in loras:
                read_main(replace(lora, key=f"model.loras_in_guide: {lora.key}"), guide, texts)
    if isinstance(model.weaken, Lora) and with_guide:
        from pipeline.networks.weights.lora import read_lora

        guide = locate(model.guide, model.config_of_guide)
        own = read_lora(Path(model.weaken.file), described_network(guide))
        where, why = f"{WEAKEN} {model.weaken.file}", "a guide reads the main network's texts"
        said.append(_said(where, "the guide's", guide, len(own.layers), "", own.left_out, why))
    return said


def _said(where: str, whose: str, checkpoint: Checkpoint, layers: int, of_texts: str, left_out: int, why: str) -> str:
    what = "UNet" if checkpoint.family.network == "unet" else checkpoint.family.network
    said = f"{where} changes layers of {whose} {what}: {layers}{of_texts}"
    return f"{said}; left out are layers of text encoders: {left_out} ({why})" if left_out else said
