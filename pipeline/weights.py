"""Stage `weights`: that every arm can be drawn, and digests of what only the configuration names.

Those are networks, of which those in the Hugging Face cache are no files of the project, a guide's LoRA, and folders
that image-to-image starts from. DVC cannot watch what its dvc.yaml does not name, so this stage looks at every run, and
generation depends on what it finds. It runs before the first picture, so it is where an arm that does not fit its
networks is refused.
"""

import json
from pathlib import Path

from pipeline.arm_checks import check_arms
from pipeline.checkpoints import locate
from pipeline.errors import InputError, run_stage
from pipeline.files import file_digest, write_atomically
from pipeline.layout import SETS, WEIGHTS
from pipeline.shards import set_fingerprint
from pipeline.stage_arguments import stage_parser
from pipeline.study import Study, load_study
from pipeline.weaken_settings import Lora
from pipeline.weight_files import digest_of, network_digest


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


def main() -> None:
    stage_parser("pipeline.weights", __doc__).parse_args()
    study = load_study()
    digests = study_digests(study)
    check_arms(study)
    write_atomically(WEIGHTS, f"{json.dumps(digests, indent=2)}\n".encode())
    found = (f"{part} {digest or 'missing, and no arm uses it'}" for part, digest in digests.items())
    print(f"weights: {len(study.arms)} arms fit their networks; {', '.join(found)}")


if __name__ == "__main__":
    run_stage(main)
