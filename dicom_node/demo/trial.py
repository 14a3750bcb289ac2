"""A run of the instrument, and what becomes of it: files, a page, tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from miadmark_core.evaluation.protocol import CLEAN, CONTROL, MARKED, NO_ENGINE
from miadmark_core.evaluation.readme import PUBLISHED, readme_table, with_table
from miadmark_core.evaluation.report import page, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from miadmark_core.evaluation.suite import Run, Suite


def evaluate(
    run: Run,
    suite: Suite,
    *,
    sets: Sequence[str],
    engines: Sequence[str],
    checkout: Path | None = None,
) -> dict[str, Any]:
    """Measure; write ``results.json`` and ``report.html``; return the results.

    Args:
        run: Where things are; both files go into ``run.stock.out``.
        suite: How much to measure.
        sets: Names of folders in ``run.stock.data``.
        engines: Of :data:`ENGINES`.
        checkout: Of the repository whose README and published results are to become
            these, if any.
    """
    out = run.stock.out
    out.mkdir(parents=True, exist_ok=True)
    found, strips = run.measure(suite, sets, engines)
    text = json.dumps(found, indent=1) + "\n"
    (out / "results.json").write_text(text, "utf-8")
    (out / "report.html").write_text(page(found, strips), "utf-8")
    if checkout is not None:
        (checkout / PUBLISHED).write_text(text, "utf-8")
        readme = checkout / "README.md"
        table = readme_table(found)
        readme.write_text(with_table(readme.read_text("utf-8"), table), "utf-8")
    return found


def rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield accuracies, 0..1, by engine, set and judge: clean, marked and control."""
    scores = {
        (c["engine"], c["data_set"], c["judge"], c["condition"]): c["scores"]
        for c in found["cells"]
    }
    for engine in found["engines"]:
        for judge in found["judges"]:
            name, data_set = judge["judge"], judge["data_set"]
            marked = scores[engine, data_set, name, MARKED]
            yield {
                "engine": engine,
                "set": data_set,
                "classifier": name,
                "box": judge["box"],
                "clean": scores[NO_ENGINE, data_set, name, CLEAN]["top1"],
                "marked": marked["top1"],
                "interval": list(marked["intervals"]["top1"]),
                "control": scores[engine, data_set, name, CONTROL]["top1"],
                "commonest": found["sets"][data_set]["majority"],
            }


def print_table(found: dict[str, Any], console: Console) -> None:
    """Print accuracies in %: clean, marked and control, by engine, set and judge."""
    for engine in found["engines"]:
        table = Table(title=f"Accuracy, %, engine {engine}")
        for column in ("set", "classifier", "box"):
            table.add_column(column)
        for column in ("clean", "marked", "95 %", "control", "commonest class"):
            table.add_column(column, justify="right")
        for row in rows(found):
            if row["engine"] == engine:
                table.add_row(
                    row["set"],
                    row["classifier"],
                    row["box"],
                    percent(row["clean"]),
                    percent(row["marked"]),
                    "-".join(percent(end) for end in row["interval"]),
                    percent(row["control"]),
                    percent(row["commonest"]),
                )
        console.print(table)
    for entry in found["marks"]:
        looks = entry["quality"]
        console.print(
            f"{entry['engine']} on {entry['data_set']}: median PSNR "
            f"{looks['psnr_db']:.1f} dB (lowest {looks['lowest_psnr_db']:.1f}), SSIM "
            f"{looks['ssim']:.3f}, restored identical "
            f"{percent(entry['restored_identical'])} %"
        )
