"""What became of files, told to a person or to a program."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from dicom_node.commands import terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node import files
    from dicom_node.commands.report import Report
    from dicom_node.leaks import Certainty

KEYS: Final = (
    *("in", "out", "status", "reason", "hint", "seconds"),
    *("psnr_db", "ssim", "misled", "leaks"),
)
"""Of an outcome, as JSON."""


def tell(
    outcomes: Iterable[files.Outcome], count: int, doing: str, report: Report
) -> int:
    """Report every outcome; 1 if one of them failed."""
    from dicom_node.leaks import Certainty

    told: Counter[str] = Counter()
    leaks: Counter[Certainty] = Counter()
    weak = 0
    for outcome in report.track(outcomes, doing, count):
        told[outcome.status] += 1
        leaks.update(finding.certainty for finding in outcome.leaks)
        weak += not all((outcome.misled or {}).values())
        if report.is_json:
            report.tell("", **outcome.as_json())
        if outcome.status == "failed":
            terminal.complain(f"{outcome.source}: {outcome.reason}", outcome.hint)
    report.say(", ".join(f"{n} {status}" for status, n in told.items()) or "no files")
    if weak:
        report.say(
            f"weak marks: {weak}, which do not mislead everybody they were tried on"
        )
    if leaks:
        report.say(
            f"{leaks[Certainty.IS]} elements still show an image, "
            f"{leaks[Certainty.MAY_BE]} may: miadmark inspect --leaks names them"
        )
    return 1 if told["failed"] else 0
