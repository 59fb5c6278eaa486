"""Stage `reference`: the real pictures that arms are compared with."""

from pipeline.errors import run_stage
from pipeline.layout import REFERENCE_SET
from pipeline.stage_arguments import stage_parser
from pipeline.study import load_study
from pipeline.tinybooru.build import build


def main() -> None:
    stage_parser("pipeline.reference", __doc__).parse_args()
    study = load_study()
    paths = build(REFERENCE_SET, "reference", study.reference.pictures, study.reference.world_seed, good_only=True)
    print(f"reference: {study.reference.pictures} real pictures in {len(paths)} shards under {REFERENCE_SET}")


if __name__ == "__main__":
    run_stage(main)
