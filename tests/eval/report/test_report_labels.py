"""The report's section on people's labels."""

from report_browser import Visit, show_plot
from report_numbers import ARMS, comparison, labelled
from report_study import Inputs

from eval.report.labels import FEW, arm_rows
from labeling.records import SampledPair, write_pairs, write_tasks
from pipeline.results.comparison import Comparison


def test_rates_of_labels_stand_with_their_intervals_and_simulated_ones_say_so(visit: Visit) -> None:
    cells = visit.page.locator("#labels-table tbody tr").first.locator("th, td").all_inner_texts()
    assert [text.split("\n")[0] for text in cells[:4]] == ["unguided", "64x64", "20", "5.0"]
    assert cells[5].split("\n") == ["35.0", "25.0\N{EN DASH}45.0", "CLIP 10.0"], "one interval, the narrower one"
    assert cells[-2] == "75.0 % (50.0\N{EN DASH}90.0)"
    assert cells[-1].startswith("8.9 %")
    names = visit.page.locator("#labels-table tbody th").all_inner_texts()
    assert names == ["unguided", "cfg_3 simulated", "negative_long"]
    unseen = visit.page.locator("#labels-table tbody tr").last.locator("td").all_inner_texts()
    assert unseen[:3] == ["\N{EN DASH}", "0 of 0 labelled", "CLIP 20.0"], "nobody saw the third arm"
    assert visit.page.locator("#labels p.simulated").inner_text().startswith("20 of the 52 labels are simulated")
    assert "\N{MINUS SIGN}10.0" in visit.page.locator("#label-differences-table tbody").inner_text()
    section = visit.page.locator("#labels").inner_text()
    assert "<b>p1</b> with themselves" in section
    assert "Krippendorff\N{RIGHT SINGLE QUOTATION MARK}s alpha (simulated)" in section
    assert "cfg_3 (simulated)" in section
    assert "3 labels in the repository are left out" in section
    show_plot(visit.page, "calibration")
    assert visit.page.locator("#plot-calibration .scatterlayer .trace").count() == 2


def test_without_labels_the_section_says_what_to_run(own_inputs: Inputs) -> None:
    empty = labelled().model_copy(
        update={
            "labels": 0,
            "pair_labels": 0,
            "labellers": 0,
            "simulated_labels": 0,
            "arms": [],
            "canvases": [],
            "differences": [],
            "self_agreement": [],
            "strengths": [],
            "agreement": None,
            "calibration": None,
        }
    )
    own_inputs.rates.write_text(empty.model_dump_json())
    page = own_inputs.report()
    assert "<p>0 of 2 images labelled." in page
    assert "make label-studio" in page
    assert 'id="labels-table"' not in page, "no table without a number"
    pair = SampledPair(
        task_id="0" * 16,
        pair_id=0,
        prompt="",
        left_arm="cfg",
        right_arm="unguided",
        left_image_id="cfg-000000",
        right_image_id="unguided-000000",
        position=0,
    )
    write_pairs(own_inputs.root / "data/sample/pairs.parquet", [pair])
    assert "<p>0 of 1 pairs compared, 0 of 2 images labelled." in own_inputs.report()
    write_tasks(own_inputs.root / "data/sample/tasks.parquet", [])
    assert "<p>0 of 1 pairs compared. <code>make label-studio" in own_inputs.report()
    own_inputs.rates.write_text(empty.model_copy(update={"pair_labels": 1, "labellers": 1}).model_dump_json())
    assert "<p>1 of 1 pairs compared.</p>" in own_inputs.report()
    assert 'id="plot-calibration"' not in page


def test_below_ten_labels_their_number_stands_instead_of_rates() -> None:
    rates = labelled()
    few = rates.arms[0].model_copy(update={"images": FEW - 1})
    first, second, third = arm_rows(
        Comparison(**comparison()), rates.model_copy(update={"arms": [few, rates.arms[1]]}), dict.fromkeys(ARMS, 60)
    )
    assert (first.few, second.few, third.few) == ("9 of 60 labelled", "", "0 of 60 labelled")
    assert {cell.text for cell in first.cells} == {""}
    assert second.cells[0].text == "5.0"
