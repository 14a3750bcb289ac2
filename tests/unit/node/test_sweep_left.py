"""What is swept while others work, and once they are gone."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

from dicom_node.lanes import sweep_left
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.state import State
from tests.fleet import NOON


def test_what_somebody_settled_and_died_before_forgetting_goes(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    spool = state.spool()
    with closing(state.queue()) as queue:
        names = [spool.write([text]) for text in (b"sent", b"waits", b"made")]
        for number, name in enumerate(names[:2]):
            arrival = Arrival(f"1.2.{number}", name.encode(), name, "1.2")
            queue.add(arrival, [Owed("r", "archive")], NOON)
        job = queue.claim(NOON, timedelta(minutes=1))
        assert job is not None
        assert queue.keep_filtered(job, names[2], "mark research")
        assert queue.sent([job], NOON) == [True]
        assert queue.files() == set(names)
        sweep_left(state, queue, spool, alone=False)
        assert queue.files() == {names[1]}
        assert [spool.holds(name) for name in names] == [False, True, False]
