"""The interactive page of docs/mechanisms.svg and docs/trajectory.svg: `python -m docs.mechanisms_page` writes
docs/mechanisms.html, one file that needs no network.

Above, the toy with known scores; below, the embedded networks along one image's trajectory. Scale, noise level and step
are sliders. What a scale does to a prediction is linear, so the page computes it; samples are drawn here, by the
project's own algebra.
"""

import base64
import json
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from docs.mechanisms import MECHANISMS, POINT, share_outside
from docs.toy import MODES, OTHER, SPREAD, draw, predictions
from docs.trajectory import SHOWN, Trajectory, as_bytes, trajectory
from pipeline.errors import run_stage
from pipeline.guidance.algebra import MAIN, Guidance, Term
from pipeline.results.colours import push_colour
from pipeline.storage.files import write_atomically
from pipeline.storage.shards import encode_png

PAGE = Path("docs/mechanisms.html")
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
NOISE = (2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.2)
_WINDOW = ((-0.8, 3.2), (-0.9, 4.1))
_ARROWS = 15
_POINTS = 300


def _rounded(points: Tensor, places: int = 3) -> list[list[float]]:
    return [[round(float(x), places), round(float(y), places)] for x, y in points]


def toy() -> dict[str, Any]:
    """The toy: predictions at a point and pushes on a grid by noise level; samples and the share outside by scale."""
    across, up = (torch.linspace(*ends, _ARROWS, dtype=torch.float64) for ends in _WINDOW)
    grid, point = torch.cartesian_prod(across, up), torch.tensor([POINT], dtype=torch.float64)
    at_point, at_grid = ([predictions(x, sigma) for sigma in NOISE] for x in (point, grid))
    columns = []
    for one in MECHANISMS:
        drawn = [draw(Guidance((Term(one.reference, scale),))) for scale in SCALES]
        columns.append(
            {
                "reference": [_rounded(found[one.reference])[0] for found in at_point],
                "pushes": [_rounded(found[MAIN] - found[one.reference]) for found in at_grid],
                "samples": [_rounded(points[:_POINTS], 2) for points in drawn],
                "outside": [round(100 * share_outside(points)) for points in drawn],
            }
        )
    return {
        "window": _WINDOW,
        "modes": MODES.tolist(),
        "other": OTHER.tolist(),
        "radius": 3 * SPREAD,
        "point": POINT,
        "noise": NOISE,
        "main": [_rounded(found[MAIN])[0] for found in at_point],
        "grid": _rounded(grid),
        "columns": columns,
    }


def embedded(found: Trajectory) -> list[dict[str, Any]]:
    """Every step of the trajectory: noise level, estimates as PNG and their places in the plane that lies nearest."""
    steps = []
    for step in found.steps:
        places, share = step.plane()
        # Plain files: the page decodes them and computes with their pixels.
        images = {SHOWN[p]: encode_png(Image.fromarray(as_bytes(estimate))) for p, estimate in step.estimates.items()}
        steps.append(
            {
                "noise": float(f"{step.sigma:.3g}"),
                "share": round(100 * share),
                "places": {SHOWN[p]: [round(value, 5) for value in place] for p, place in places.items()},
                "images": {said: base64.b64encode(png).decode() for said, png in images.items()},
            }
        )
    return steps


def main() -> None:
    found = trajectory()
    columns = [{"title": one.title, "called": one.called, "colour": one.colour} for one in MECHANISMS]
    colours = {said: "currentColor" if p == MAIN else push_colour([p.name]) for p, said in SHOWN.items()}
    data = {"scales": SCALES, "columns": columns, "colours": colours, "toy": toy(), "steps": embedded(found)}
    environment = Environment(loader=FileSystemLoader(PAGE.parent), undefined=StrictUndefined, autoescape=True)
    # In a script element only "<" could end it.
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = environment.get_template("mechanisms.html.j2").render(data=content, trajectory=found)
    write_atomically(PAGE, page.encode())
    print(f"{PAGE}: {len(page) / 1e6:.1f} MB; {len(found.steps)} steps of seed {found.seed}")


if __name__ == "__main__":
    run_stage(main)
