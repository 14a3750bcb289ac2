"""How a back-fill tells a person or a program how it goes, and its exit code.

It counts what has become of each object. What is done to one is not known here.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, Self

from dicom_node.commands import terminal

if TYPE_CHECKING:
    from dicom_node.backfill.manifest import Entry, Manifest
    from dicom_node.backfill.source import Source
    from dicom_node.commands.report import Bar, Report

KEYS: Final = (
    *("source", "sop_instance_uid", "before", "after", "status", "reason", "size"),
    *("verified", "done_before", "manifest", "seconds"),
)
"""The last three are of the first line, whose status is begun."""
_INTERRUPTED: Final = 130
_DOING: Final = "back-fill"


class Progress:
    """Tells a person or a program how it goes."""

    def __init__(
        self, source: Source, manifest: Manifest, began: float, report: Report
    ) -> None:
        """Prepare.

        Args:
            source: Knows how much there is.
            manifest: Knows what was done before.
            began: When the command did, on the monotonic clock.
            report: Tells it.
        """
        self._source, self._manifest, self._before = source, manifest, manifest.done
        self._began, self._report = began, report
        self._told: Counter[str] = Counter()
        self._verified = 0
        self._shown = ExitStack()
        self._bar: Bar

    def __enter__(self) -> Self:
        """Show the bar, and say what is known."""
        self._bar = self._shown.enter_context(self._report.working(_DOING))
        if self._report.is_json:
            self._report.tell(
                "",
                status="begun",
                done_before=self._before,
                manifest=str(self._manifest.path),
                seconds=round(time.monotonic() - self._began, 3),
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._shown.close()

    def tell(self, entry: Entry) -> None:
        """Say what became of an object."""
        self._told[entry.status] += 1
        self._verified += entry.verified
        if self._bar.is_shown:
            done = self._before + self._told.total()
            self._bar.expect(self._source.count(), done=done)
        if self._report.is_json:
            self._report.tell("", **asdict(entry))
        if entry.status == "failed":
            terminal.complain(f"{entry.source}: {entry.reason}", "")

    def wait(self, why: str) -> None:
        """Say why nothing is done; empty once something is."""
        self._bar.say(why or _DOING)

    def end(self, *, is_stopped: bool) -> int:
        """Say what was done, and return the exit code."""
        said = [f"{count} {status}" for status, count in self._told.items()]
        said += [f"{self._before} done before"] * bool(self._before)
        said += [f"{self._verified} restored and compared"] * bool(self._verified)
        self._report.say(", ".join(said) or "no objects")
        if is_stopped:
            terminal.complain(
                "stopped before everything was done", "The same command goes on."
            )
            return _INTERRUPTED
        return 1 if self._told["failed"] else 0
