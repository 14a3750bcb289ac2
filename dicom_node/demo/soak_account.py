"""What a soak comes to: each object accounted for once, or a sentence that says why not.

What was sent is held against what the senders and the receiver have written down, and
against what the queue of the node says, once nothing is owed any more. What the processes
grew by, and how often one was killed, is told by whoever has looked on.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node.demo.soak_objects import Odd, Piece, Templates, Way
from dicom_node.queue.job import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dicom_node.demo.soak_watch import Growth
    from dicom_node.state import State

MOST_TRIES: Final = 5
"""Of an object that is odd."""
_GROWN_MB: Final = 24.0
"""That a process may have grown, beside a tenth of what it had."""
_GROWN_DESCRIPTORS: Final = 16
_WARM_S: Final = 300.0
"""From when on a process has loaded all that it needs."""


@dataclass(slots=True)
class Account:
    """What a soak came to."""

    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    arrivals: int = 0
    """At the receiver, what came twice counted twice."""
    counts: dict[JobState, int] = field(default_factory=dict)
    growths: Sequence[Growth] = ()
    most_tries: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    """Sentences; none if all is well."""

    def judge(
        self,
        pieces: Sequence[Piece],
        names: Mapping[str, str],
        senders: Sequence[Path],
        sink: Path,
        state: State,
    ) -> None:
        """Find out what is wrong.

        Args:
            pieces: What was sent.
            names: UIDs of the originals of what was marked beforehand, by its own.
            senders: What each has written down.
            sink: What the receiver has.
            state: Of the node.
        """
        answers = _answers(senders)
        arrived, self.arrivals = _arrived(sink)
        kept = self._look(state, names)
        clashes = Counter(
            Piece(p.known, p.way).uid for p in pieces if p.odd is Odd.CLASH
        )
        templates, originals = Templates(), set()
        for piece in pieces:
            originals.add(_digest(templates.pixels(piece.number)))
        for piece in pieces:
            answer = answers.get(piece.number, "nothing")
            self.answers[answer] += 1
            got = arrived.pop(piece.uid, set())
            held = kept.pop(piece.uid, 0) - clashes.get(piece.uid, 0)
            what = f"object {piece.number} ({piece.odd or 'sound'}, {piece.way.value})"
            if (answer == "0000") != piece.is_taken:
                self.wrong.append(f"{what} was answered {answer}")
            if (held, len(got)) != (piece.is_held, piece.is_taken - piece.is_held):
                self.wrong.append(
                    f"{what} is held {held} times, and arrived as {len(got)} different"
                )
            elif got and not _is_right(piece, got, originals, templates):
                self.wrong.append(f"{what} arrived as something else, or unmarked")
        self.wrong += [f"{name} arrived, and was never sent" for name in arrived]
        self.wrong += [f"{name} is held, and was never sent" for name in kept]
        taken = sum(piece.is_taken for piece in pieces) + clashes.total()
        sound = sum(piece.odd is None for piece in pieces)
        if (sum(self.counts.values()), self.counts[JobState.SENT]) != (taken, sound):
            self.wrong.append(
                f"{taken} were taken and {sound} sent; counted: {self.counts}"
            )
        if self.most_tries > MOST_TRIES:
            self.wrong.append(f"something odd was tried {self.most_tries} times")
        self.wrong += [
            f"{one.role} grew by {one.grown_mb:.0f} MB, {one.grown_descriptors} files"
            for one in self.growths
            if one.seconds > _WARM_S
            and (
                one.grown_mb > _GROWN_MB + one.pss_mb / 10
                or one.grown_descriptors > _GROWN_DESCRIPTORS
            )
        ]

    def _look(self, state: State, names: Mapping[str, str]) -> Counter[str]:
        """See what the queue says; return how often what is kept for a person."""
        queue = state.queue()
        with closing(queue), closing(queue_of(state)) as database:
            self.counts = queue.counts()
            kept = Counter(
                names.get(one.sop_instance_uid, one.sop_instance_uid)
                for each in (JobState.HELD, JobState.QUARANTINED)
                for one in queue.held(each)
            )
            tried = database.execute("SELECT max(crashes), max(faults) FROM job")
            self.most_tries = sum(n or 0 for n in tried.fetchone())
        return kept

    def lines(self) -> list[str]:
        """Return it for people."""
        counted = ", ".join(f"{n} {state.value}" for state, n in self.counts.items())
        answered = ", ".join(f"{n} x {a}" for a, n in self.answers.most_common())
        return [
            f"{self.seconds:.0f} s; answered: {answered}",
            f"queue: {counted}; arrivals, repeats included: {self.arrivals}",
            f"tries of something odd, at most: {self.most_tries}",
            f"the worker was killed {self.kills} times",
            *(
                f"{one.role}: {one.pss_mb:.0f} MB PSS, {one.rss_mb:.0f} MB RSS, "
                f"{one.descriptors} descriptors; over {one.seconds:.0f} s it grew by "
                f"{one.grown_mb:.1f} MB ({one.mb_per_hour:+.1f} MB an hour at the end) "
                f"and {one.grown_descriptors} descriptors"
                for one in self.growths
            ),
            *(self.wrong[:50] or ["all is accounted for"]),
        ]


def queue_of(state: State) -> sqlite3.Connection:
    """Look at the queue without its own code, and without touching it."""
    place = (state.folder / "queue.sqlite").absolute().as_uri()
    return sqlite3.connect(f"{place}?mode=ro", uri=True)


def _answers(senders: Sequence[Path]) -> dict[int, str]:
    """Return what each object was answered, by its number."""
    found = {}
    for path in senders:
        for line in path.read_text().splitlines():
            name, answer = line.split()
            found[int(name)] = answer
    return found


def _arrived(sink: Path) -> tuple[dict[str, set[str]], int]:
    """Return as what each name arrived, and how many objects came."""
    found: dict[str, set[str]] = defaultdict(set)
    lines = sink.read_text().splitlines()
    for line in lines:
        name, digest = line.split()
        found[name].add(digest)
    return found, len(lines)


def _is_right(
    piece: Piece, got: set[str], originals: set[str], templates: Templates
) -> bool:
    if piece.way is Way.MARKED:
        return not got & originals
    return got == {_digest(templates.pixels(piece.number))}


def _digest(pixels: bytes) -> str:
    return hashlib.sha256(pixels).hexdigest()
