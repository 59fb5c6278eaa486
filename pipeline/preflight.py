"""What can be known of a study before its first image: every arm fits its networks, and digests of what is used.

The digests are of networks, of which those in the Hugging Face cache are not files of the project, of a guide's LoRA,
of folders that image-to-image starts from, and of the program's own code. DVC cannot watch what its dvc.yaml does not
name, so the stage `preflight` (eval/preflight.py, which also looks at what measures) runs every time.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.compatibility.described import described_network
from pipeline.compatibility.loras import lora_changes
from pipeline.errors import InputError
from pipeline.external.folder_images import check_external, folder_digest
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.called_files import added_loras, called_embeddings
from pipeline.generation.reference_images import encoder_digests, reference_files
from pipeline.generation.shard_plan import (
    DEVICES,
    arm_texts,
    common_inputs,
    main_checkpoint,
    plan_shards,
    replaced_parts,
)
from pipeline.guidance.algebra import Network
from pipeline.layout import REFERENCE_SET, SETS
from pipeline.networks.checkpoints import Checkpoint, locate
from pipeline.networks.weights.weight_files import digest_of, lora_digest, network_digest
from pipeline.prompting.text_settings import check_clip_skip
from pipeline.storage.files import file_digest
from pipeline.storage.shards import set_fingerprint
from pipeline.study.arm import Arm
from pipeline.study.study import TINYBOORU, Study
from pipeline.study.weaken import DropLayers, Lora


def study_digests(study: Study) -> dict[str, str | None]:
    """Digests of a study's networks, of what replaces their parts, of masks and reference images, and of the folders
    images start or come from.

    None for a guide, a LoRA, a mask or a folder that is not there: `check_arms` refuses the arms that need it.
    Raises InputError for everything else that is missing, and for a folder that an arm of this study makes.
    """
    folders = {f"from {folder}": _start_digest(folder) for folder in _start_folders(study)}
    folders |= {
        f"mask {path}": file_digest(Path(path)) if Path(path).is_file() else None
        for arm in study.arms.values()
        if arm.inpaint is not None and (path := arm.inpaint.file) is not None
    }
    for name, arm in study.arms.items():
        if arm.reference_images is not None:
            folders |= {f"image {path}": file_digest(path) for path in reference_files(name, arm)}
    folders |= {f"from {own.folder}": folder_digest(own) for arm in study.arms.values() if (own := arm.from_folder)}
    return (_network_digests(study) if study.generated else {}) | folders


def _network_digests(study: Study) -> dict[str, str | None]:
    model = study.model
    digests: dict[str, str | None] = {"main": network_digest(main_checkpoint(model), with_text_encoder=True)}
    for part, source in (("vae", model.vae), ("text_encoder", model.text_encoder)):
        if source is not None:
            digests[part] = digest_of(locate(source, model.config), (part,))
    try:
        digests["guide"] = network_digest(locate(model.guide, model.config_of_guide), with_text_encoder=False)
    except InputError:
        digests["guide"] = None
    if isinstance(model.weaken, Lora):
        file = Path(model.weaken.file)
        digests["lora"] = file_digest(file) if file.is_file() else None
    if model.ip_adapter is not None and any(arm.reference_images for arm in study.arms.values()):
        digests |= {f"ip_adapter {name}": digest for name, digest in encoder_digests(model.ip_adapter).items()}
    digests |= {f"lora {lora.file}": lora_digest(lora.key, lora.file) for lora in added_loras(study)}
    for name in study.generated:
        called = called_embeddings(study, arm_texts(study, name))
        digests |= {f"embedding {name}": file_digest(path) for name, path in called.items()}
    return digests


def _start_folders(study: Study) -> list[Path]:
    folders = set()
    for name, arm in study.arms.items():
        if arm.image_to_image is None or not arm.image_to_image.is_folder:
            continue
        folder = Path(arm.image_to_image.start)
        if folder == REFERENCE_SET:  # made after this; `generate` depends on it
            continue
        if folder.parent == SETS and folder.name in study.arms:
            raise InputError(
                f"arms.{name}.image_to_image.from {folder} is what arm {folder.name} generates, maybe later than "
                f"this one; write from: {folder.name} with source: ${{arms.{folder.name}}} in conf/"
            )
        folders.add(folder)
    return sorted(folders)


def _start_digest(folder: Path) -> str | None:
    try:
        return set_fingerprint(folder)
    except InputError:
        return None


def check_arms(study: Study) -> None:
    """Raise InputError where an arm does not fit the study's networks, prompts, start images or number of images.

    Weights are not loaded: what they are is read from configurations. Of an external arm's images the headers are.
    """
    for name, arm in study.arms.items():
        if arm.from_folder is not None:
            check_external(name, arm.from_folder, study.generate.images)
    if not study.generated:
        return
    main = main_checkpoint(study.model)
    _check_what_unets_have(study, main)
    for name, arm in study.arms.items():
        if arm.from_folder is not None:
            continue
        if _starts_from_reference(arm):
            _check_reference_start(study, name)
        else:
            plan_shards(study, name, arm_texts(study, name), DEVICES[0])
    swapped = replaced_parts(study.model).get("text_encoder")
    encoders = dict.fromkeys(main.family.text_parts, main)
    if swapped is not None:
        encoders["text_encoder"] = locate(swapped, study.model.config)
    for part, checkpoint in encoders.items():
        settings = checkpoint.settings(part) or {}
        if "num_hidden_layers" in settings:  # else transformers' own default
            check_clip_skip(study.text.clip_skip, int(settings["num_hidden_layers"]), main.family.layers_left_out)
    _check_layers(study, main)
    lora_changes(study)


def _check_what_unets_have(study: Study, main: Checkpoint) -> None:
    """Raise InputError if a study asks for something that only UNets have of another kind of network."""
    if main.family.network == "unet":
        return
    model = study.model
    asked = {
        "model.vae": model.vae is not None and main.settings("vae") is None,
        "model.loading.attention_slicing": model.loading.attention_slicing,
    }
    if key := next((key for key, value in asked.items() if value), None):
        raise InputError(f"{key} is for UNets, and {main.config} is a {main.family.network} ({main.family.name})")


def _starts_from_reference(arm: Arm) -> bool:
    start = arm.image_to_image
    return start is not None and start.is_folder and Path(start.start) == REFERENCE_SET


def _check_reference_start(study: Study, name: str) -> None:
    # The reference set is made after this, so its number of images is what the study asks for.
    arm_texts(study, name)
    common_inputs(study, name, DEVICES[0])
    if study.reference.images < study.generate.images and study.reference.source == TINYBOORU:
        raise InputError(
            f"arms.{name}.image_to_image.from {REFERENCE_SET} will hold {study.reference.images} images "
            f"(reference.images), generate.images is {study.generate.images}; each image needs one to start from"
        )


def _check_layers(study: Study, main: Checkpoint) -> None:
    asked: dict[str, tuple[Checkpoint, tuple[str, ...] | None]] = {}
    steered: dict[str, tuple[Checkpoint, tuple[str, ...] | None]] = {}

    def network_of(name: Network) -> Checkpoint:
        return main if name == "main" else locate(study.model.guide, study.model.config_of_guide)

    for name, arm in study.arms.items():
        predictions = guidance_of(arm).predictions()
        for prediction in predictions:
            if prediction.perturbation is not None:
                own = prediction.name in arm.references
                key = f"arms.{name}.references.{prediction.name}" if own else f"arms.{name}"
                asked[f"{key}.perturb.layers"] = network_of(prediction.network), prediction.perturbation.layers
        if arm.attention is not None:
            of_texts = steered if main.family.one_stream else asked
            of_texts[f"arms.{name}.attention.layers"] = main, arm.attention.layers
        if isinstance(study.model.weaken, DropLayers) and any(p.network == "guide" for p in predictions):
            asked["model.weaken.layers"] = network_of("guide"), study.model.weaken.layers
    # Their import takes ten seconds, which studies without such arms do not wait for.
    if asked:
        from pipeline.networks.perturbation import transformer_blocks

        _check_blocks(asked, transformer_blocks)
    if steered:
        from pipeline.networks.stream_steering import blocks_with_text

        _check_blocks(steered, blocks_with_text)


def _check_blocks(
    asked: Mapping[str, tuple[Checkpoint, tuple[str, ...] | None]], blocks_of: Callable[..., object]
) -> None:
    for key, (checkpoint, layers) in asked.items():
        try:
            blocks_of(described_network(checkpoint), layers)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
