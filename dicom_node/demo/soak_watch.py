"""What the processes of a node hold on to: memory and descriptors, over time.

Linux only: everything is read from ``/proc``.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final, NamedTuple

ROLES: Final = ("serve", "receiver", "worker", "passer", "codec_child", "desk")
_LEAST: Final = 8
"""Samples that a slope is told of."""


class Sample(NamedTuple):
    """One process at one moment."""

    at: float
    """Seconds since it was first looked."""
    pss_kb: int
    """Its own memory, and its part of what it shares."""
    rss_kb: int
    descriptors: int


class Growth(NamedTuple):
    """How one process changed, from the second quarter of its samples to the last."""

    role: str
    seconds: float
    pss_mb: float
    """Now."""
    rss_mb: float
    descriptors: int
    grown_mb: float
    grown_descriptors: int
    mb_per_hour: float
    """Slope of a line through the second half."""


class Watch:
    """Looks at a process and all that it has started."""

    def __init__(self, pid: int) -> None:
        """Keep whom to look at."""
        self._pid, self._began = pid, time.monotonic()
        self.samples: dict[tuple[str, int], list[Sample]] = {}

    def look(self) -> None:
        """Take a sample of each process that is there."""
        at = time.monotonic() - self._began
        for pid in family(self._pid):
            try:
                sample = _looked(pid, at)
                role = role_of(pid)
            except (OSError, StopIteration):
                continue  # it has just gone
            self.samples.setdefault((role, pid), []).append(sample)

    def process(self, role: str) -> int | None:
        """Return the process of a role that was seen last."""
        pids = [pid for name, pid in self.samples if name == role]
        return pids[-1] if pids else None

    def now(self) -> str:
        """Return the last samples, in words."""
        last: dict[str, Sample] = {
            role: samples[-1]
            for (role, _), samples in sorted(
                self.samples.items(), key=lambda item: item[1][-1].at
            )
        }
        return ", ".join(
            f"{role} {one.pss_kb // 1024} MB {one.descriptors} fd"
            for role, one in sorted(last.items())
        )

    def growths(self) -> list[Growth]:
        """Return how each role's process changed that was there longest."""
        longest: dict[str, list[Sample]] = {}
        for (role, _), samples in self.samples.items():
            if len(samples) > len(longest.get(role, [])):
                longest[role] = samples
        return [
            growth(role, samples)
            for role, samples in sorted(longest.items())
            if len(samples) >= _LEAST
        ]


def growth(role: str, samples: list[Sample]) -> Growth:
    """Return how a process changed.

    Args:
        role: For people.
        samples: Eight at least, in order. The first quarter warms up.
    """
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    half = samples[len(samples) // 2 :]
    line = statistics.linear_regression(
        [one.at for one in half], [float(one.pss_kb) for one in half]
    )

    def change(of: str) -> float:
        first, last = (
            statistics.median(getattr(one, of) for one in some)
            for some in (early, late)
        )
        return float(last - first)

    return Growth(
        role,
        samples[-1].at - samples[0].at,
        samples[-1].pss_kb / 1024,
        samples[-1].rss_kb / 1024,
        samples[-1].descriptors,
        change("pss_kb") / 1024,
        round(change("descriptors")),
        line.slope * 3600 / 1024,
    )


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return found
    for child in children:
        found += family(int(child))
    return found


def role_of(pid: int) -> str:
    """Return what a process of a node was started for."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    words = line.split("\0")
    return next(
        role for role in ROLES if any(word.endswith(role) for word in words[:6])
    )


def _looked(pid: int, at: float) -> Sample:
    values = dict.fromkeys(("Pss:", "Rss:"), 0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, value, *_ = line.split()
        if name in values:
            values[name] = int(value)
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Sample(at, values["Pss:"], values["Rss:"], descriptors)
