"""What a reader takes along: the matrix of verdicts as CSV, Markdown and LaTeX, and a citation."""

import base64
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from eval.report.matrix import Matrix, MatrixCell, MatrixRow
from pipeline.results.comparison import Comparison


@dataclass(frozen=True)
class Download:
    """A file inside the page, as the address of a link that saves it."""

    label: str
    name: str
    address: str


def download(label: str, name: str, kind: str, content: str) -> Download:
    """A file of text of a media type."""
    return Download(label, name, f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}")


def downloads(comparison: Comparison, found: Matrix, figure: str, commit: str) -> list[Download]:
    """The files of the first screen; `figure` is the SVG of its panels, empty without any."""
    name = f"guidedrift-{comparison.study}"
    files = [download("Figure as SVG", f"{name}.svg", "image/svg+xml", figure)] if figure else []
    if found.told or found.untold:
        files += [
            download("Table as CSV", f"{name}.csv", "text/csv", matrix_csv(found)),
            download("Markdown", f"{name}.md", "text/markdown", matrix_markdown(found)),
            download("LaTeX", f"{name}.tex", "application/x-tex", matrix_latex(found)),
        ]
    return [*files, download("Citation", f"{name}.bib", "application/x-bibtex", citation(comparison, commit))]


def matrix_csv(found: Matrix) -> str:
    """One row per arm; of every question the value, the ends of its interval and whether it is settled."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [f"{column.topic.lower()}{part}" for column in found.columns for part in ("", "_low", "_high", "_settled")]
    writer.writerow(["arm", "method", "scale", "prompt", "images", *heads, "evaluations"])
    for row in _rows(found):
        cells: list[object] = []
        for cell in row.cells:
            cells += ["", "", "", ""] if cell is None else _numbers(cell)
        arm = row.arm
        writer.writerow([arm.arm, arm.method, f"{arm.scale:g}", arm.prompt, arm.n, *cells, row.cost.rstrip("×")])
    return text.getvalue()


def matrix_markdown(found: Matrix) -> str:
    """A table; what is not settled is in italics."""
    lines = [
        f"| arm | {' | '.join(_heads(found))} | evaluations |",
        f"|---|{'---:|' * (len(found.columns) + 1)}",
        *(f"| {row.arm.arm} | {' | '.join(map(_markdown, row.cells))} | {row.cost} |" for row in _rows(found)),
    ]
    return "\n".join(
        [*lines, "", "Intervals in parentheses; what cannot be told apart from no change is in italics.", ""]
    )


def matrix_latex(found: Matrix) -> str:
    """A tabular of booktabs; what is not settled is in italics."""
    body = [
        " & ".join([_escaped(row.arm.arm), *map(_latex, row.cells), row.cost.replace("×", r"$\times$")]) + r" \\"
        for row in _rows(found)
    ]
    lines = [
        "% \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(found.columns) + 1)}}}",
        r"\toprule",
        " & ".join(["arm", *_heads(found), "evaluations"]) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ]
    return "\n".join(lines)


def citation(comparison: Comparison, commit: str) -> str:
    """BibTeX of this study's results, by the digests that tell them from others."""
    made = comparison.provenance
    note = f"parameters {made.params}, main network {made.main}" + (f", commit {commit[:12]}" if commit else "")
    return (
        f"@misc{{guidedrift-{comparison.study},\n"
        f"  title = {{guidedrift, study {_escaped(comparison.study)}: what guidance does to images}},\n"
        f"  note = {{{note}}}\n"
        "}\n"
    )


def _rows(found: Matrix) -> Iterator[MatrixRow]:
    yield from found.told
    yield from found.untold


def _heads(found: Matrix) -> list[str]:
    return [f"{column.topic.lower()} ({column.unit})" for column in found.columns]


def _numbers(cell: MatrixCell) -> list[object]:
    one = cell.interval
    return [f"{one.value:.6g}", f"{one.low:.6g}", f"{one.high:.6g}", "yes" if cell.settled else "no"]


def _markdown(cell: MatrixCell | None) -> str:
    if cell is None:
        return ""
    text = f"{cell.text} ({cell.span})"
    return text if cell.settled else f"*{text}*"


def _latex(cell: MatrixCell | None) -> str:
    if cell is None:
        return ""
    text = f"{cell.text} ({cell.span})".replace("\N{MINUS SIGN}", "$-$").replace("\N{EN DASH}", "--")
    return text if cell.settled else rf"\textit{{{text}}}"


def _escaped(text: str) -> str:
    return text.replace("_", r"\_")
