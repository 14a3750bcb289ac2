"""Asking who is down, while what is known of them cannot be written."""

from __future__ import annotations

import logging
import sqlite3
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from dicom_node.breaker import Breaker, Trouble
from dicom_node.config import Config, Listener
from dicom_node.demo.loopback import await_that
from dicom_node.destination import Destination
from dicom_node.errors import SendError
from dicom_node.probing import Probing
from dicom_node.reachability import Reachability
from tests.fleet import NOON

A = Destination(name="a", ae_title="A", host="127.0.0.1", port=1)


def test_that_nobody_can_be_asked_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "destinations.sqlite"
    opened = partial(Reachability, file, [A], Breaker(failures=1))
    asked: list[str] = []

    def probe(destination: Destination) -> None:
        asked.append(destination.name)
        raise SendError("it does not answer")

    with opened() as table:
        table.failed("a", Trouble.UNREACHABLE, "it does not answer", NOON)
    config = Config(node=Listener(state=tmp_path), destinations=(A,), routes=())
    looks: list[None] = []

    def clock() -> datetime:
        looks.append(None)
        return NOON + timedelta(days=1)

    probing = Probing(config, opened, probe, clock)
    with (
        caplog.at_level(logging.INFO, "dicom_node.probing"),
        sqlite3.connect(file) as db,
    ):
        for change in ("INSERT", "UPDATE"):
            db.execute(
                f"CREATE TRIGGER no_{change} BEFORE {change} ON destination"
                " BEGIN SELECT RAISE(FAIL, 'it cannot be written'); END"
            )
        db.commit()
        probing.start()
        try:
            await_that(lambda: len(looks) > 3, "several looks")
            assert len(caplog.records) == 1
            assert "nobody is asked" in caplog.text
            assert asked == []
            db.execute("DROP TRIGGER no_INSERT")
            db.execute("DROP TRIGGER no_UPDATE")
            db.commit()
            await_that(lambda: asked == ["a"], "one who is asked")
        finally:
            probing.stop()
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING"]
