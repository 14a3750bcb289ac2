"""The README's tables, made of ``results.json``: nothing in them is entered by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from miadmark_core.evaluation.protocol import (
    CLEAN,
    CONTROL,
    MARKED,
    NO_ENGINE,
    PURIFIED,
    REMOVED,
)
from miadmark_core.evaluation.report import percent
from miadmark_core.evaluation.results import PAPER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PUBLISHED: Final = "miadmark_core/evaluation/results.json"
"""In a checkout: the results that its README shows."""

BEGIN: Final = "<!-- begin: written by `miadmark evaluate --publish` -->"
END: Final = "<!-- end -->"

_NAMES: Final = {
    "brain_mri": "brain MRI",
    "chest_xray": "chest X-ray",
    "skin_dermoscopy": "dermoscopy",
}


_COLUMNS: Final = (
    ("clean", "clean"),
    ("white_box", "white box"),
    ("black_box", "black box"),
    ("purified", "purified"),
    ("removed", "removed"),
    ("removed_knowing_our_marks", "removed, knowing us"),
    ("control", "control"),
)


def readme_table(results: dict[str, Any]) -> str:
    """Return the README's table in Markdown, from :data:`BEGIN` to :data:`END`."""
    first = next(iter(results["engines"]))
    lines = [
        BEGIN,
        *_table(["engine", *(title for _, title in _COLUMNS)], _summary(results)),
        "",
        *_worst(results["summary"]),
        "",
        f"Engine `{first}`, classifier by classifier:",
        "",
        *_table(
            [
                "set",
                "classifier",
                "box",
                "clean",
                "marked (95 %)",
                "balanced",
                "AUC",
                "relabelled",
                "control",
                "worst attacker",
            ],
            _rows(results, first),
        ),
        "",
        *_table(
            [
                "engine",
                "set",
                "images",
                "PSNR (lowest)",
                "SSIM",
                "PSNR in region",
                "restored",
            ],
            _looks(results),
        ),
        "",
        *(f"- {sentence}." for sentence in results["cautions"]),
        END,
    ]
    return "\n".join(lines)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _summary(results: dict[str, Any]) -> Iterator[list[str]]:
    for engine, entry in results["summary"].items():
        yield [
            engine,
            *(
                _with_interval(entry[key], entry["intervals"][key])
                for key, _ in _COLUMNS
            ),
        ]
    yield [
        "*MIAD-MARK, as published*",
        *(f"{100 * PAPER[key]:.2f}" if key in PAPER else "-" for key, _ in _COLUMNS),
    ]


def _with_interval(share: float | None, interval: Sequence[float] | None) -> str:
    if interval is None:
        return percent(share)
    low, high = interval
    return f"{percent(share)} ({percent(low)}-{percent(high)})"


def _worst(summary: dict[str, Any]) -> Iterator[str]:
    yield "What withstands, or undoes, each engine best (of what was right, is right):"
    yield ""
    for engine, entry in summary.items():
        named = [
            f"{kind} {found['name']} ({percent(found['top1_of_right'])})"
            for kind, found in entry["worst"].items()
            if found is not None
        ]
        yield f"- `{engine}`: {', '.join(named)}"


def _looks(results: dict[str, Any]) -> Iterator[list[str]]:
    for entry in results["marks"]:
        looks = entry["quality"]
        yield [
            entry["engine"],
            _name(entry["data_set"]),
            str(entry["images"]),
            f"{looks['psnr_db']:.1f} dB ({looks['lowest_psnr_db']:.1f})",
            f"{looks['ssim']:.3f}",
            f"{looks['region_psnr_db']:.1f} dB",
            percent(entry["restored_identical"]),
        ]


def _rows(results: dict[str, Any], engine: str) -> Iterator[list[str]]:
    for judge in results["judges"]:
        cells = [
            cell
            for cell in results["cells"]
            if (cell["data_set"], cell["judge"]) == (judge["data_set"], judge["judge"])
            and cell["engine"] in {NO_ENGINE, engine}
        ]
        by_name = {cell["condition"]: cell["scores"] for cell in cells}
        most, which = max(
            (
                (cell["scores"]["top1"], cell["condition"])
                for cell in cells
                if cell["kind"] in {PURIFIED, REMOVED}
            ),
            default=(None, ""),
        )
        marked = by_name[MARKED]
        low, high = marked["intervals"]["top1"]
        yield [
            _name(judge["data_set"]),
            judge["judge"],
            judge["box"],
            percent(by_name[CLEAN]["top1"]),
            f"**{percent(marked['top1'])}** ({percent(low)}-{percent(high)})",
            percent(marked["balanced"]),
            f"{marked['auc']:.2f}",
            percent(marked["relabelled"]),
            percent(by_name[CONTROL]["top1"]),
            f"{percent(most)} {which}",
        ]


def with_table(readme: str, table: str) -> str:
    """Return a README with its table replaced.

    Raises:
        ValueError: It has no place for one.
    """
    begin, end = readme.index(BEGIN), readme.index(END)
    return readme[:begin] + table + readme[end + len(END) :]


def _name(data_set: str) -> str:
    return _NAMES.get(data_set, data_set)
