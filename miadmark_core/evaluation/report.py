"""``results.json`` for people: a page with tables, plots and pictures.

Everything shown is read from the results; nothing is worked out here but layout.
"""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from miadmark_core.evaluation.judges import BLACK
from miadmark_core.evaluation.protocol import MARKED, NO_ENGINE
from miadmark_core.evaluation.results import PAPER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from miadmark_core.evaluation.suite import Strip

AMPLIFIED: Final = 8
"""The difference is shown this many times as strong, around middle grey."""


def page(results: dict[str, Any], strips: Sequence[Strip]) -> str:
    """Return the page, one HTML file with the pictures inside and no script."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["percent"] = percent
    source = resources.files(__package__).joinpath("report.html.j2")
    return environment.from_string(source.read_text("utf-8")).render(
        r=results,
        tables={name: list(_tables(results, name)) for name in results["sets"]},
        bars=_bars(results),
        paper=PAPER,
        strips=[
            {
                "data_set": strip.data_set,
                "engine": strip.engine,
                "pictures": list(_pictures(strip)),
            }
            for strip in strips
        ],
    )


def percent(share: float | None) -> str:
    """Return a share in %, with one place; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def _tables(results: dict[str, Any], data_set: str) -> Iterator[dict[str, Any]]:
    judges = [j for j in results["judges"] if j["data_set"] == data_set]
    cells = [c for c in results["cells"] if c["data_set"] == data_set]
    for engine in results["engines"]:
        mine = [c for c in cells if c["engine"] in {NO_ENGINE, engine}]
        scores = {(c["judge"], c["condition"]): c["scores"] for c in mine}
        columns = list(dict.fromkeys(c["condition"] for c in mine))
        yield {
            "engine": engine,
            "columns": columns,
            "rows": [
                {
                    "judge": j["judge"],
                    "box": j["box"],
                    "known": j,
                    "shares": [scores[j["judge"], c]["top1"] for c in columns],
                    "scores": scores[j["judge"], MARKED],
                }
                for j in judges
            ],
        }


def _bars(results: dict[str, Any]) -> Markup:
    """Return a plot: what is left to the victims, by engine and condition."""
    drawn: list[str] = []
    y = 0
    for engine in results["engines"]:
        y += 24
        drawn.append(f'<text x="0" y="{y}" font-weight="700">{_safe(engine)}</text>')
        for condition, share in _means(results["cells"], engine):
            y += 18
            drawn.append(
                f'<text x="0" y="{y}">{_safe(condition)}</text>'
                f'<rect x="170" y="{y - 11}" width="{500 * share:.1f}" height="13" '
                f'fill="#c83c28" opacity=".7"/>'
                f'<text x="{176 + 500 * share:.1f}" y="{y}">{percent(share)}</text>'
            )
    # Everything in it is a number or has been escaped.
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 740 {y + 10}" width="740" role="img" '
        f'aria-label="accuracy left to the victims">{"".join(drawn)}</svg>'
    )


def _means(cells: Iterable[dict[str, Any]], engine: str) -> Iterator[tuple[str, float]]:
    """Yield each condition with the mean of the black box over sets."""
    grouped: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        if cell["engine"] in {NO_ENGINE, engine} and cell["box"] == BLACK:
            of_set = grouped.setdefault(cell["condition"], {})
            of_set.setdefault(cell["data_set"], []).append(cell["scores"]["top1"])
    for condition, by_set in grouped.items():
        yield condition, float(np.mean([np.mean(v) for v in by_set.values()]))


def _safe(text: str) -> str:
    return str(Markup.escape(text))


def _pictures(strip: Strip) -> Iterator[tuple[str, str]]:
    change = strip.marked.astype(np.int16) - strip.original
    amplified = np.clip(128 + AMPLIFIED * change, 0, 255).astype(np.uint8)
    for caption, pixels in (
        ("original", strip.original),
        ("marked", strip.marked),
        (f"difference x{AMPLIFIED}", amplified),
        *((f"marked, {name}", pixels) for name, pixels in strip.attacked.items()),
    ):
        yield caption, _source(pixels)


def _source(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
