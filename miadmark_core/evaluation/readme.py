"""The README's tables, made of ``results.json``: nothing in them is entered by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from miadmark_core.evaluation.protocol import CLEAN, CONTROL, MARKED
from miadmark_core.evaluation.report import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLISHED: Final = "miadmark_core/evaluation/results.json"
"""In a checkout: the results that its README shows."""

BEGIN: Final = "<!-- begin: written by `miadmark evaluate --publish` -->"
END: Final = "<!-- end -->"

_NAMES: Final = {
    "brain_mri": "brain MRI",
    "chest_xray": "chest X-ray",
    "skin_dermoscopy": "dermoscopy",
}


def readme_table(results: dict[str, Any]) -> str:
    """Return the README's table in Markdown, from :data:`BEGIN` to :data:`END`."""
    header = (
        "| engine | white box | black box | purified | removed | removed, knowing us"
        " | control |"
    )
    lines = [
        BEGIN,
        header,
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {engine} | "
        + " | ".join(
            percent(entry[key])
            for key in (
                "white_box",
                "black_box",
                "purified",
                "removed",
                "removed_knowing_our_marks",
                "control",
            )
        )
        + " |"
        for engine, entry in results["summary"].items()
    ]
    first = next(iter(results["engines"]))
    header = (
        "| set | classifier | box | clean | marked (95 %) | balanced | AUC | relabelled"
        " | control | worst purifier |"
    )
    lines += [
        "",
        f"Engine `{first}`, classifier by classifier:",
        "",
        header,
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += _rows(results, first)
    lines += [
        "",
        "| engine | set | images | PSNR (lowest) | SSIM | PSNR in region | restored |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry['engine']} | {_name(entry['data_set'])} | {entry['images']} | "
        f"{entry['quality']['psnr_db']:.1f} dB "
        f"({entry['quality']['lowest_psnr_db']:.1f}) | "
        f"{entry['quality']['ssim']:.3f} | {entry['quality']['region_psnr_db']:.1f} dB | "
        f"{percent(entry['restored_identical'])} |"
        for entry in results["marks"]
    ]
    return "\n".join([*lines, END])


def _rows(results: dict[str, Any], engine: str) -> Iterator[str]:
    for judge in results["judges"]:
        cells = [
            cell
            for cell in results["cells"]
            if (cell["data_set"], cell["judge"]) == (judge["data_set"], judge["judge"])
            and cell["engine"] in {"none", engine}
        ]
        by_name = {cell["condition"]: cell["scores"] for cell in cells}
        purified = [
            (cell["scores"]["top1"], cell["condition"])
            for cell in cells
            if cell["kind"] == "purified"
        ]
        most, which = max(purified, default=(None, ""))
        marked = by_name[MARKED]
        low, high = marked["intervals"]["top1"]
        name = _name(judge["data_set"])
        yield (
            f"| {name} | {judge['judge']} | {judge['box']} | "
            f"{percent(by_name[CLEAN]['top1'])} | **{percent(marked['top1'])}** "
            f"({percent(low)}-{percent(high)}) | {percent(marked['balanced'])} | "
            f"{marked['auc']:.2f} | {percent(marked['relabelled'])} | "
            f"{percent(by_name[CONTROL]['top1'])} | {percent(most)} {which} |"
        )


def with_table(readme: str, table: str) -> str:
    """Return a README with its table replaced.

    Raises:
        ValueError: It has no place for one.
    """
    begin, end = readme.index(BEGIN), readme.index(END)
    return readme[:begin] + table + readme[end + len(END) :]


def _name(data_set: str) -> str:
    return _NAMES.get(data_set, data_set)
