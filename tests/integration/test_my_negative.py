"""From a fresh clone to the answer about one's own negative prompt, with one command and the shell's quotes alone."""

import json
import shlex

import pyarrow.parquet as pq
import yaml
from clone import Clone, stages_run

MINE = 'bad hands: "blurry", it\'s [lowres] (worst:1.2) \\\\ 低品质 ${x} $HOME'


def test_one_command_answers_for_a_negative_prompt_with_everything_in_it(clone: Clone) -> None:
    command = f"./guidedrift run --study quick --yes --negative {shlex.quote(MINE)} text=plain"
    said = clone.shell(command)
    assert {"generate", "measure", "compare", "report", "track"} <= stages_run(said)
    assert f"negative prompt: {MINE}\n" in said
    assert yaml.safe_load((clone.folder / "params.yaml").read_text())["negative"] == MINE
    drawn = pq.read_table(clone.folder / "data/sets/negative", columns=["negative_prompt"])
    assert set(drawn["negative_prompt"].to_pylist()) == {MINE}
    arms = {arm["arm"]: arm for arm in json.loads((clone.folder / "metrics/compare.json").read_text())["arms"]}
    assert arms["negative"]["negative_prompt"] == MINE
    assert arms["negative"]["against_baseline"]["fd"]["n"] == 16
    last = said.splitlines()[-1]
    assert last.startswith("made: reports/index.html of study 'quick', 5 arms with 80 images (10 shards generated)")
    assert "16 images per arm are too few to conclude anything" in last
    assert last.endswith("Next: guidedrift report")
    assert "too few to conclude anything" in (clone.folder / "reports/index.html").read_text()
    again = clone.shell(command)
    assert stages_run(again) == set()
    assert "of which 0 are to be generated" in again
    assert "(nothing had to be generated)" in again
