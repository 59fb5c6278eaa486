"""Two folders of someone's images and a folder of real ones: one command, the whole report, and no network."""

import json

from clone import SMALL, Clone, stages_run
from external_images import comfy_graph, picture, texts
from playwright.sync_api import Browser

SCRIPT = "<script>document.title = 'run'</script>"
COUNT = 14


def _save(clone: Clone) -> None:
    sizes, modes = [(60, 40), (40, 60), (50, 50)], ["RGB", "RGBA", "L", "P"]
    for name, first in (("forge", 0), ("comfy", 0), ("real", 500)):
        (clone.folder / "mine" / name).mkdir(parents=True)
        for k in range(2 * COUNT if name == "real" else COUNT):
            said = texts(parameters=f"{SCRIPT} {k}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: {k}")
            if name == "comfy":
                said = texts(prompt=json.dumps(comfy_graph(f"{SCRIPT} {k}", seed=k))[: 90 if k == 3 else None])
            image = picture(first + k, sizes[k % 3]).convert(modes[k % 4])
            image.save(clone.folder / "mine" / name / f"{k:02d}.png", pnginfo=said)
    rows = "\n".join(f"{k:02d}.png,{k}" for k in range(COUNT))
    (clone.folder / "images" / "scores.csv").write_text(f"file,pick\n{rows}\n")


def test_one_command_compares_two_folders(clone: Clone, browser: Browser) -> None:
    config = clone.folder / "conf/config.yaml"
    config.write_text(config.read_text().replace(SMALL, ""))
    _save(clone)
    command = (
        "./guidedrift compare-folders mine/forge mine/comfy --reference mine/real metrics.resamples=100 "
        "reference.canvas.width=64 reference.canvas.height=48 arms.b.from_folder.scores=images/scores.csv"
    )
    said = clone.shell(command)
    assert {"reference", "generate", "measure", "compare", "report", "track"} <= stages_run(said)
    assert "study 'compare_folders' of images made elsewhere; baseline a" in said
    compared = json.loads((clone.folder / "metrics/compare.json").read_text())
    assert compared["external"]["a"]["paired_by"] == "name"
    assert compared["external"]["a"]["tools"] == {"A1111": COUNT}
    assert compared["external"]["b"]["tools"] == {"ComfyUI": COUNT - 1}
    assert compared["external"]["b"]["unread"][0]["file"] == "03.png"
    assert compared["external"]["b"]["scores"]["pick"]["mean"]["value"] == (COUNT - 1) / 2
    first, other = compared["arms"]
    assert first["kinds"] == {}
    assert not {"clip_score", "aesthetic", "malformed"} & set(first["scores"])
    assert other["against_baseline"]["aesthetic"] is None
    assert [space["extractor"] for space in compared["spaces"]] == ["efficientnet_lite0", "pyramid"]
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto((clone.folder / "reports/index.html").as_uri())
    page.wait_for_selector("#gallery-table tbody img")
    assert page.title() == "guidedrift: compare_folders"
    assert page.locator("h1").inner_text() == "How do the images of folder b differ from those of folder a?"
    assert "Images of the same name are pairs." in page.locator("#external-arms").inner_text()
    assert "03.png: its ComfyUI graph is not whole JSON" in page.locator("#external-arms").inner_text()
    assert SCRIPT in page.locator("#gallery-table").inner_text()
    assert "P(malformed)" not in page.locator("body").inner_text()
    page.locator("#gallery-table tbody img").nth(1).click()
    assert "tool: ComfyUI" in (page.locator("#image pre").text_content() or "")
    assert faults == []
    card = (clone.folder / "data/dataset/README.md").read_text()
    assert "<script>" not in card
    assert "whoever made them says it" in card
    again = clone.shell(command)
    assert stages_run(again) == set()
