"""A minute of kills and of a failing disk; ``tests/kills.py`` has hours of it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faulty import FaultyNode
from tests.kills import (
    FIRST,
    IO_ERROR,
    LEDGER,
    NO_SPACE,
    OUT_OF_RESOURCES,
    QUEUE,
    at_points,
    finish,
    lacking,
    with_errors,
)

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler"),
    # pynetdicom leaves sockets to the collector where a peer is gone.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def node(tmp_path: Path, images: Path) -> Iterator[FaultyNode]:
    with FaultyNode(tmp_path / "node", images / "ct.dcm") as node:
        node.await_up()
        yield node


def test_kills_lose_nothing_and_mark_nothing_twice(node: FaultyNode) -> None:
    figures = at_points(node, FIRST, math.inf)
    finish(node)
    assert figures.happened == figures.rounds == len(FIRST)
    assert figures.points == {*FIRST}
    assert node.starts > 1
    assert len(node.acknowledged) == figures.rounds


def test_a_failing_disk_is_answered_and_loses_nothing(node: FaultyNode) -> None:
    receiving = [
        ("receiver", "create", "incoming", NO_SPACE),
        ("receiver", "write", "incoming", NO_SPACE),
        ("receiver", "fsync", "incoming", IO_ERROR),
        ("receiver", "rename", "instance", NO_SPACE),
        ("receiver", "fsync", "spool", IO_ERROR),
        ("receiver", "fsync", QUEUE, IO_ERROR),
    ]
    figures = with_errors(node, receiving, 1, math.inf)
    assert figures.answers[OUT_OF_RESOURCES] == figures.rounds == len(receiving)
    assert lacking(figures, receiving) == []
    working = [
        ("worker", "fsync", LEDGER, IO_ERROR),
        ("worker", "write", "incoming", NO_SPACE),
        ("worker", "write", "incoming", "short"),
        ("worker", "rename", "outgoing", NO_SPACE),
        ("worker", "write", QUEUE, NO_SPACE),
    ]
    figures = with_errors(node, working, 1, math.inf)
    assert figures.happened == figures.rounds == len(working)
    assert lacking(figures, working) == []
    assert figures.answers == {0: figures.rounds}
    finish(node)
