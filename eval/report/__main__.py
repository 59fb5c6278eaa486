"""Stage `report`: the comparison becomes one self-contained HTML page with tables, plots and a gallery."""

from eval.report.page import report
from pipeline.errors import run_stage
from pipeline.layout import REPORT
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import write_atomically
from pipeline.study.study import load_study


def main() -> None:
    stage_parser("eval.report", __doc__).parse_args()
    page = report(load_study()).encode()
    write_atomically(REPORT, page)
    print(f"report: {REPORT} ({len(page) / 1e6:.1f} MB)")


if __name__ == "__main__":
    run_stage(main)
