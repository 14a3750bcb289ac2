"""Kill a node at named system calls and at any time, let its disk fail: what is lost.

The short form is part of the test-suite. The long one takes about an hour where there are
two processors::

    python -m tests.kills FOLDER --each 25 --random 1000 --errors 2000

Processes are forked with everything imported, and as many nodes run at once as there are
processors: starting to be a node takes far longer than being killed.

Whatever happens: what was acknowledged arrives, on all routes; nothing arrives unmarked
on those that mark; all that ever arrives there of one original has the same pixels; and
no file is left over once the node has been started again.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.faulty import FaultyNode

QUEUE: Final = "queue.sqlite-wal"
LEDGER: Final = "ledger.sqlite-wal"


class Point(NamedTuple):
    """The how many-eth call of a kind, for one object; two routes mark, one passes."""

    role: str
    call: str
    kind: str
    when: int


def _points(role: str, call: str, kind: str, *whens: int) -> list[Point]:
    return [Point(role, call, kind, when) for when in whens]


POINTS: Final = [
    # Coming in: the file, its name, the queue's commit, the answer.
    *_points("receiver", "create", "incoming", 1),
    *_points("receiver", "write", "incoming", 1),  # it is sealed, all at once
    *_points("receiver", "fsync", "incoming", 1),
    *_points("receiver", "rename", "instance", 1),
    *_points("receiver", "fsync", "spool", 1),
    *_points("receiver", "write", QUEUE, 1, 6, 12),
    *_points("receiver", "fsync", QUEUE, 1),
    *_points("receiver", "send", "socket", 1, 2),
    *_points("receiver", "unlink", "incoming", 1),
    # Claim, number, mark, record, name; file, its name, claimed file; settle, forget.
    *_points("worker", "fsync", QUEUE, 1, 2, 3, 4, 5, 6, 7),
    *_points("worker", "write", QUEUE, 5, 20),
    *_points("worker", "fsync", LEDGER, 1, 2, 3, 4, 5, 6),
    *_points("worker", "write", LEDGER, 3, 20),
    *_points("worker", "create", "incoming", 1),
    *_points("worker", "write", "incoming", 1),
    *_points("worker", "fsync", "incoming", 1, 2),
    *_points("worker", "rename", "outgoing", 1, 2),
    *_points("worker", "fsync", "spool", 1),
    *_points("worker", "send", "socket", 1, 2, 3, 5, 7),
    *_points("worker", "unlink", "outgoing", 1, 2),
    *_points("worker", "unlink", "instance", 1),
    # Claim, send, settle.
    *_points("passer", "write", QUEUE, 1),
    *_points("passer", "fsync", QUEUE, 1),
    *_points("passer", "send", "socket", 1, 2),
]
"""Each before and after: twice as many named points."""

CALLS: Final = {"receiver": 30, "worker": 100, "passer": 15}
"""How many calls there are of one object, about."""

FIRST: Final = [
    (Point("worker", "fsync", LEDGER, 3), "kill-after"),
    (Point("receiver", "fsync", QUEUE, 1), "kill-after"),
    (Point("worker", "rename", "outgoing", 1), "kill-after"),
    (Point("worker", "send", "socket", 3), "kill-after"),
    (Point("receiver", "rename", "instance", 1), "kill-after"),
    (Point("worker", "fsync", QUEUE, 2), "kill-before"),
    (Point("passer", "send", "socket", 1), "kill-after"),
]
"""Where most could go wrong."""

NO_SPACE: Final = str(errno.ENOSPC)
IO_ERROR: Final = str(errno.EIO)

OUT_OF_RESOURCES: Final = 0xA700

ERRORS: Final[list[tuple[str, str, str, str]]] = [
    (role, call, kind, action)
    for role, call, kind in (
        ("receiver", "create", "incoming"),
        ("receiver", "write", "incoming"),
        ("receiver", "fsync", "incoming"),
        ("receiver", "rename", "instance"),
        ("receiver", "fsync", "spool"),
        ("receiver", "write", QUEUE),
        ("receiver", "fsync", QUEUE),
        ("worker", "create", "incoming"),
        ("worker", "write", "incoming"),
        ("worker", "fsync", "incoming"),
        ("worker", "rename", "outgoing"),
        ("worker", "fsync", "spool"),
        ("worker", "write", QUEUE),
        ("worker", "fsync", QUEUE),
        ("worker", "write", LEDGER),
        ("worker", "fsync", LEDGER),
        ("worker", "unlink", "instance"),
        ("worker", "unlink", "outgoing"),
    )
    for action in (NO_SPACE, IO_ERROR, *(["short"] if call == "write" else []))
]


@dataclass
class Figures:
    """What was done, and what the node answered."""

    rounds: int = 0
    happened: int = 0
    """Rounds in which the fault was reached."""
    points: set[tuple[Point, str]] = field(default_factory=set)
    answers: Counter[int | None] = field(default_factory=Counter)

    def __str__(self) -> str:
        answers = {
            "none" if status is None else f"0x{status:04X}": count
            for status, count in self.answers.items()
        }
        return (
            f"rounds={self.rounds} happened={self.happened} "
            f"named points={len(self.points)} answers={answers}"
        )


Tell = Callable[[str], None]


def _silent(_: str) -> None:
    """Say nothing."""


def say(line: str) -> None:
    """Say it at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def at_points(
    node: FaultyNode, todo: list[tuple[Point, str]], until: float, tell: Tell = _silent
) -> Figures:
    """Kill at each of ``todo``, for as long as there is time."""
    figures = Figures()
    for point, action in todo:
        if time.monotonic() > until:
            break
        node.fault(*point, action)
        figures.answers.update(node.send_until_taken(node.original()))
        node.await_settled()
        figures.rounds += 1
        if node.no_fault():
            figures.happened += 1
            figures.points.add((point, action))
        node.check()
        tell(f"{figures}")
    return figures


def at_random(
    node: FaultyNode,
    kills: int,
    chance: random.Random,
    until: float,
    tell: Tell = _silent,
) -> Figures:
    """Kill one of the processes at any time while a few objects are on their way."""
    figures = Figures()
    while figures.rounds < kills and time.monotonic() < until:
        ones = [node.original() for _ in range(chance.randint(1, 3))]
        role = chance.choice(["serve", "receiver", "worker", "worker", "passer"])
        killed: list[bool] = []
        for one in ones[:-1]:
            figures.answers.update(node.send_until_taken(one))
        if role == "serve":  # it makes few calls itself
            killing = threading.Timer(chance.random(), _kill, [node, role, killed])
            killing.start()
        else:
            calls = CALLS[role] * (1 if role == "receiver" else len(ones))
            node.fault(role, "any", "any", chance.randint(1, calls), "kill-before")
        figures.answers.update(node.send_until_taken(ones[-1]))
        node.await_settled()
        if role == "serve":
            killing.join()
            node.await_up()
            node.await_settled()
        figures.rounds += 1
        figures.happened += any(killed) if role == "serve" else node.no_fault()
        node.check()
        tell(f"{figures}")
    return figures


def _kill(node: FaultyNode, role: str, killed: list[bool]) -> None:
    killed.append(node.kill(role))


def with_errors(
    node: FaultyNode,
    todo: list[tuple[str, str, str, str]],
    most: int,
    until: float,
    tell: Tell = _silent,
) -> Figures:
    """Let the n-th call fail, n from 1 on until a run is clean, or for ``most``."""
    figures = Figures()
    for role, call, kind, action in todo:
        for when in range(1, most + 1):
            if time.monotonic() > until:
                return figures
            node.fault(role, call, kind, when, action)
            answers = node.send_until_taken(node.original())
            figures.answers.update(answers)
            assert set(answers) <= {0, OUT_OF_RESOURCES}, (call, kind, answers)
            node.await_settled()
            figures.rounds += 1
            is_clean = not node.no_fault()
            figures.happened += not is_clean
            node.check()
            tell(f"{role} {call} {kind} {action} {when}: {figures}")
            if is_clean:
                break
            figures.points.add((Point(role, call, kind, when), action))
    return figures


def lacking(figures: Figures, wanted: Collection[tuple[str, ...]]) -> list[str]:
    """Return what was never reached: a figure says nothing without it.

    Args:
        figures: What was done.
        wanted: Role, call, kind and action, with or without which call it is.
    """
    reached: set[tuple[str, ...]] = set()
    for point, action in figures.points:
        reached.add((point.role, point.call, point.kind, action))
        reached.add((*map(str, point), action))
    lack = [" ".join(one) for one in wanted if one not in reached]
    return lack if figures.happened else [*lack, "nothing happened at all"]


def finish(node: FaultyNode) -> None:
    """Start the node once more, and hold that it is as if nothing had happened."""
    node.await_settled()
    node.restart()
    node.await_settled()
    node.await_tidy()
    node.check()


def main() -> int:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=0, help="kills at each named point")
    parser.add_argument("--random", type=int, default=0, help="kills at any time")
    parser.add_argument(
        "--errors",
        type=int,
        default=0,
        help="n-th calls, until a run is clean; at most",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6, help="for each part")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    shares = [
        multiprocessing.get_context("fork").Process(
            target=_share, args=[options, number]
        )
        for number in range(options.at_once)
    ]
    for share in shares:
        share.start()
    for share in shares:
        share.join()
    return 1 if any(share.exitcode for share in shares) else 0


def _share(options: argparse.Namespace, number: int) -> None:
    """Do every so many-eth of everything, on a node of one's own."""
    step = options.at_once
    chance = random.Random(options.seed + number)  # noqa: S311
    template = Path("dicom_node/demo/images/ct.dcm")
    todo = [(p, a) for p in POINTS for a in ("kill-before", "kill-after")][number::step]
    errors = ERRORS[number::step]
    kills = len(range(number, options.random, step))
    parts: dict[str, Callable[[FaultyNode, float], Figures]] = {}
    wanted: dict[str, list[tuple[str, ...]]] = {
        "points": [(*map(str, point), action) for point, action in todo],
        "random": [],
        "errors": [*errors],
    }
    lack: list[str] = []
    if options.each:
        every = todo * options.each
        parts["points"] = lambda node, end: at_points(node, every, end, tell=say)
    if options.random:
        parts["random"] = lambda node, end: at_random(
            node, kills, chance, end, tell=say
        )
    if options.errors:
        most = options.errors
        parts["errors"] = lambda node, end: with_errors(
            node, errors, most, end, tell=say
        )
    for name, run in parts.items():
        with FaultyNode(options.folder / f"{name}-{number}", template) as node:
            node.await_up()
            began = time.monotonic()
            figures = run(node, began + 60 * options.minutes)
            seconds = time.monotonic() - began
            finish(node)
            acknowledged = len(node.acknowledged)
            say(f"{name}: {figures} acknowledged={acknowledged} starts={node.starts}")
            say(f"{name}: {seconds / max(1, figures.rounds):.2f} s a round")
            say(f"{name}: lost 0, unmarked 0, two marks 0, left over 0")
            for one in (found := lacking(figures, wanted[name])):
                say(f"{name}: never reached: {one}")
            lack += found
    if lack:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
