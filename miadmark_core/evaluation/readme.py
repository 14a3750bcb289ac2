"""Tables of the README, made of files of results: nothing in these is entered by hand."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from miadmark_core.evaluation.judges import BLACK
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

OWN_PAIRS: Final = "miadmark_core/evaluation/own-pairs.json"
"""Likewise, of an attacker whom no suite has: ten thousand own pairs take over an
hour of a core for each set."""

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


def pairs_table(results: dict[str, Any], own_pairs: dict[str, Any]) -> str:
    """Return what own pairs buy an attacker, in Markdown: black box, a column a set.

    Args:
        results: Of the suite ``full``.
        own_pairs: With the attacker ``own-pairs-10000``, of the same engine.

    Raises:
        ValueError: What both have is not the same: they are not of the same marks.
    """
    many, few = (_of_victims(found, "standard") for found in (own_pairs, results))
    shared = (CLEAN, MARKED)
    sets = list(few[CLEAN])
    if any(many[of].get(name) != few[of][name] for of in shared for name in sets):
        raise ValueError("the results are not of the same marks")
    rows = {
        "clean": few[CLEAN],
        "marked": few[MARKED],
        "after 1,000 own pairs": few["own-pairs-1000"],
        "after 10,000 own pairs": many["own-pairs-10000"],
    }
    return "\n".join(
        _table(
            ["black box, top-1 in %", *map(_name, sets)],
            (
                [what, *(percent(row[name]) for name in sets)]
                for what, row in rows.items()
            ),
        )
    )


def _of_victims(results: dict[str, Any], engine: str) -> dict[str, dict[str, float]]:
    """Return by condition and set what is right, on average over victims; 0 to 1."""
    shares: dict[str, dict[str, list[float]]] = {}
    for cell in results["cells"]:
        if cell["box"] == BLACK and cell["engine"] in {NO_ENGINE, engine}:
            of_set = shares.setdefault(cell["condition"], {})
            of_set.setdefault(cell["data_set"], []).append(cell["scores"]["top1"])
    return {
        condition: {name: fmean(right) for name, right in of_set.items()}
        for condition, of_set in shares.items()
    }


def with_table(readme: str, table: str) -> str:
    """Return a README with its table replaced.

    Raises:
        ValueError: It has no place for one.
    """
    begin, end = readme.index(BEGIN), readme.index(END)
    return readme[:begin] + table + readme[end + len(END) :]


def _name(data_set: str) -> str:
    return _NAMES.get(data_set, data_set)
