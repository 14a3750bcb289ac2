"""What became of files, told to a person or to a program."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from dicom_node.commands import terminal
from dicom_node.leaks import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node import files


def tell(
    outcomes: Iterable[files.Outcome], count: int, verb: str, *, as_json: bool
) -> int:
    """Report every outcome; 1 if one of them failed."""
    told: Counter[str] = Counter()
    leaks: Counter[Certainty] = Counter()
    bar = Console(stderr=True)
    for outcome in track(
        outcomes, verb, total=count, console=bar, disable=not bar.is_terminal
    ):
        told[outcome.status] += 1
        leaks.update(finding.certainty for finding in outcome.leaks)
        if as_json:
            print(json.dumps(outcome.as_json()), flush=True)
        if outcome.status == "failed":
            terminal.complain(f"{outcome.source}: {outcome.reason}", outcome.hint)
    if not as_json:
        print(", ".join(f"{n} {status}" for status, n in told.items()) or "no files")
        if leaks:
            print(
                f"{leaks[Certainty.IS]} elements still show an image, "
                f"{leaks[Certainty.MAY_BE]} may: miadmark inspect --leaks names them"
            )
    return 1 if told["failed"] else 0
