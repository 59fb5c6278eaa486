"""Digests of what a study draws with and only the configuration names.

Those are networks, of which those in the Hugging Face cache are no files of the project, a guide's LoRA, and folders
that image-to-image starts from. DVC cannot watch what its dvc.yaml does not name; stage `weights` looks at every run.
"""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.layout import SETS
from pipeline.networks.checkpoints import locate
from pipeline.networks.weight_files import digest_of, network_digest
from pipeline.storage.files import file_digest
from pipeline.storage.shards import set_fingerprint
from pipeline.study.study import Study
from pipeline.study.weaken import Lora


def study_digests(study: Study) -> dict[str, str | None]:
    """Digests of a study's networks, of what takes the place of their parts, and of the folders pictures start from.

    None for a guide, a LoRA or a folder that is not there: `check_arms` refuses the arms that need it.
    Raises InputError for everything else that is missing, and for a folder that an arm of this study makes.
    """
    model = study.model
    digests: dict[str, str | None] = {"main": network_digest(locate(model.main, model.config), with_text_encoder=True)}
    for part, source in (("vae", model.vae), ("text_encoder", model.text_encoder)):
        if source is not None:
            digests[part] = digest_of(locate(source, model.config), (part,))
    try:
        digests["guide"] = network_digest(locate(model.guide, model.config), with_text_encoder=False)
    except InputError:
        digests["guide"] = None
    if isinstance(model.weaken, Lora):
        file = Path(model.weaken.file)
        digests["lora"] = file_digest(file) if file.is_file() else None
    return digests | {f"from {folder}": _start_digest(folder) for folder in _start_folders(study)}


def _start_folders(study: Study) -> list[Path]:
    folders = set()
    for name, arm in study.arms.items():
        if arm.image_to_image is None or not arm.image_to_image.is_folder:
            continue
        folder = Path(arm.image_to_image.start)
        if folder.parent == SETS and folder.name in study.arms:
            raise InputError(
                f"arms.{name}.image_to_image.from {folder} is what arm {folder.name} draws, maybe later than this one; "
                f"write from: {folder.name} with source: ${{arms.{folder.name}}} in conf/"
            )
        folders.add(folder)
    return sorted(folders)


def _start_digest(folder: Path) -> str | None:
    try:
        return set_fingerprint(folder)
    except InputError:
        return None
