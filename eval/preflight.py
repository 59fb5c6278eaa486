"""Stage `preflight`: every arm can be generated and measured to its end; digests of what dvc.yaml does not name.

Those are networks, folders that images start from, versions of libraries, weights that measure, and units of the
program's code. DVC cannot watch them, so this stage runs every time and the others depend on what it writes. It runs
before the first image, so it is where a study is refused that would stop hours later: for an arm that does not fit its
networks, or for missing weights of a score.
"""

import json
from pathlib import Path

from pipeline.code_units import write_units
from pipeline.compatibility.loras import lora_changes
from pipeline.compatibility.networks import check_networks
from pipeline.errors import InputError, run_stage
from pipeline.experiment import remember_params
from pipeline.generation.shard_plan import arm_texts, library_versions
from pipeline.layout import CODE, IMAGES, MEASURING, WEIGHTS
from pipeline.networks.checkpoints import locate
from pipeline.preflight import check_arms, study_digests
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.prompt_sets import PROMPTS_FOLDER
from pipeline.stage_arguments import stage_parser
from pipeline.storage.digest_memory import remembered_sha256
from pipeline.storage.file_names import check_names
from pipeline.storage.files import write_atomically
from pipeline.study.controls import check_headlines
from pipeline.study.negative import check_negative
from pipeline.study.scorers import PREFERENCES, SINGLE_FILES
from pipeline.study.study import Study, load_study


def needed_files(study: Study) -> dict[Path, str]:
    """The files that a study's images are measured with, each with what is said where it is missing."""
    metrics = study.metrics
    found: dict[Path, str] = {}
    for extractor in study.features.extractors.values():
        found |= extractor.kind.faults(extractor.weights, extractor.hub)
    for name, folder in metrics.scorers.items():
        found |= PREFERENCES[name].faults(folder)
    for name, scorer in SINGLE_FILES.items():
        if place := getattr(metrics, name):
            found |= scorer.faults(place)
    return found


# Files that a run names at most.
_NAMED = 8


def check_measurable(study: Study) -> None:
    """Raise InputError where a file that measures is missing, or LPIPS is asked for and no prompt repeats."""
    for path, fault in needed_files(study).items():
        if not path.is_file():
            raise InputError(fault)
    if study.metrics.lpips:
        from eval.scorers.lpips import check_repeats  # with libraries that no other study needs here

        prompts = arm_texts(study, study.baseline)["prompt"]
        try:
            check_repeats([plain_text(prompt, study.text) for prompt in prompts])
        except ValueError as error:
            raise InputError(
                f"metrics.lpips {study.metrics.lpips}: {error}; take fewer prompts than generate.images "
                f"({study.generate.images}), which then repeat, or leave lpips out of scorers"
            ) from None


def main() -> None:
    stage_parser("eval.preflight", __doc__).parse_args()
    study = load_study()
    changed = write_units(CODE)
    if changed:
        more = f" and {len(changed) - _NAMED} more files" if len(changed) > _NAMED else ""
        print(f"preflight: code that changed since the last run: {', '.join(changed[:_NAMED])}{more}")
    for folder in (IMAGES, Path(PROMPTS_FOLDER)):
        check_names(folder)
    check_negative(study.negative, study.arms)
    check_headlines(study.headlines, study.arms)
    check_measurable(study)
    if study.generated:
        check_networks(study, study.generated)  # headers and configurations alone; digests read every byte
    digests = study_digests(study)
    check_arms(study)
    for said in lora_changes(study):
        print(f"preflight: {said}")
    if (
        study.generated
        and not study.is_embedded
        and locate(study.model.main, study.model.config).settings("vae") is not None
    ):
        from pipeline.generation.study_estimate import study_estimate  # with diffusers, which takes ten seconds

        print(f"preflight: {study_estimate(study)}")
    # What decides pixels beside the code, which DVC sees, and the machine: sets travel to others and stay as they are.
    drawing = {**digests, "libraries": library_versions()}
    measuring = {str(path): remembered_sha256(path)[:16] for path in needed_files(study)}
    remember_params()
    for path, content in ((WEIGHTS, drawing), (MEASURING, measuring)):
        write_atomically(path, f"{json.dumps(content, indent=2)}\n".encode())
    found = (f"{part} {digest or 'missing, and no arm uses it'}" for part, digest in digests.items())
    print(
        f"preflight: {len(study.arms)} arms fit their networks; {', '.join(found)}; "
        f"{len(measuring)} files that measure are there"
    )


if __name__ == "__main__":
    run_stage(main)
