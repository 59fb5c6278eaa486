"""Three mechanisms of guidance side by side, in the plane, with known scores: `python -m docs.mechanisms` plots them.

Columns: CFG (away from no prompt), a negative prompt that names the other class, and a weaker network, in the toy of
docs/toy.py. Rows: the predictions at one point as vectors, the distribution that is sampled, and the push at every
point. The scores are exact, so what differs between the columns is the reference alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from docs.toy import MODES, OTHER, SPREAD, draw, mode_shares, predictions
from pipeline.guidance.algebra import EMPTY, GUIDE, MAIN, NEGATIVE, Guidance, Prediction, Term
from pipeline.results.colours import push_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCALE = 2.0
# The noise level of vectors and pushes: modes still overlap, and the classes are told apart.
SIGMA = 0.7
# A noised point between the class and the other one, where the three references disagree.
POINT = (2.1, 1.5)
_POINTS = 300
# The part of the plane that is shown, the part around POINT, and how many arrows a side has.
_WINDOW = ((-0.8, 3.2), (-0.9, 4.1))
_AROUND = ((0.8, 2.4), (0.2, 2.2))
_ARROWS = 15
_QUIET = 0.02


@dataclass(frozen=True)
class Mechanism:
    """One kind of guidance: its title, the reference that it moves away from, and what that is called in the plot."""

    title: str
    reference: Prediction
    called: str

    @property
    def guidance(self) -> Guidance:
        return Guidance((Term(self.reference, SCALE),))

    @property
    def colour(self) -> str:
        return push_colour([self.reference.name])


MECHANISMS = (
    Mechanism("CFG: away from no prompt", EMPTY, "no prompt"),
    Mechanism("negative prompt: away from what it names", NEGATIVE, "negative"),
    Mechanism("autoguidance: away from a weaker network", GUIDE, "weaker network"),
)


def push(x: Tensor, reference: Prediction, sigma: float = SIGMA) -> Tensor:
    """What guidance at SCALE adds to the prediction of x0 at points x [N, 2]: (SCALE - 1) (main - reference)."""
    predicted = predictions(x, sigma)
    return (SCALE - 1) * (predicted[MAIN] - predicted[reference])


def share_outside(points: Tensor) -> float:
    """The share of points [N, 2] that lie outside every mode of the class."""
    return 1 - float(mode_shares(points).sum())


def _vectors(ax: "Axes", mechanism: Mechanism) -> None:
    point = torch.tensor([POINT], dtype=torch.float64)
    main, reference = (predictions(point, SIGMA)[one][0] for one in (MAIN, mechanism.reference))
    guided = main + push(point, mechanism.reference)[0]
    away = {"arrowstyle": "-", "color": "grey", "linestyle": ":"}
    ax.annotate("", main.tolist(), reference.tolist(), arrowprops=away)
    ax.annotate(
        "", guided.tolist(), main.tolist(), arrowprops={"arrowstyle": "-|>", "color": mechanism.colour, "lw": 2}
    )
    for name, place, look in (
        ("noised point", point[0], {"marker": "x", "color": "black"}),
        (mechanism.called, reference, {"marker": "o", "color": "black", "fillstyle": "none"}),
        ("prompt", main, {"marker": "o", "color": "black"}),
        ("guided", guided, {"marker": "s", "color": mechanism.colour}),
    ):
        ax.plot(*place.tolist(), linestyle="", markersize=6, label=name, **look)
    ax.legend(loc="lower left", fontsize=8)


def _distribution(ax: "Axes", mechanism: Mechanism) -> None:
    points = draw(mechanism.guidance)
    shares = mode_shares(points)
    ax.scatter(*points[:_POINTS].T.numpy(), s=4, alpha=0.4, color=mechanism.colour, linewidths=0)
    ax.annotate(f"outside every mode: {share_outside(points):.0%}", (0.97, 0.03), xycoords="axes fraction", ha="right")
    for mean, share in zip(MODES.tolist(), shares.tolist(), strict=True):
        ax.annotate(f"{share:.0%}", mean, xytext=(-34, 0), textcoords="offset points", fontsize=8)


def _field(ax: "Axes", mechanism: Mechanism) -> None:
    across, up = (torch.linspace(*ends, _ARROWS, dtype=torch.float64) for ends in _WINDOW)
    x = torch.cartesian_prod(across, up)
    pushed = push(x, mechanism.reference)
    seen = pushed.norm(dim=1) > _QUIET
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 4, "width": 0.004}
    ax.quiver(*x[seen].T.numpy(), *pushed[seen].T.numpy(), color=mechanism.colour, **arrows)


ROWS = {"predictions at one point": _vectors, "what is sampled": _distribution, "the push at every point": _field}


def main() -> None:
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mechanisms", "font.size": 9})
    figure, axes = plt.subplots(len(ROWS), len(MECHANISMS), figsize=(10.5, 13.2))
    for row, (said, shown) in zip(axes, ROWS.items(), strict=True):
        for ax, mechanism in zip(row, MECHANISMS, strict=True):
            for mean in MODES.tolist():
                ax.add_patch(plt.Circle(mean, 3 * SPREAD, fill=False, color="grey", linewidth=0.8))
            for mean in OTHER.tolist():
                ax.add_patch(plt.Circle(mean, 3 * SPREAD, fill=False, color="grey", linewidth=0.8, linestyle=":"))
            shown(ax, mechanism)
            window = _AROUND if shown is _vectors else _WINDOW
            ax.set(xlim=window[0], ylim=window[1], aspect="equal", xticks=[], yticks=[])
        row[0].set_ylabel(said)
    for ax, mechanism in zip(axes[0], MECHANISMS, strict=True):
        ax.set_title(mechanism.title, fontsize=10)
    figure.tight_layout()
    path = Path(__file__).with_name("mechanisms.svg")
    figure.savefig(path, metadata={"Date": None})
    print(f"{path.name}: scale {SCALE:g}; vectors and pushes at noise level {SIGMA:g}")


if __name__ == "__main__":
    main()
