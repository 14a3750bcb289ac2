"""A server that is away is told of once."""

from __future__ import annotations

import logging

import pytest

from dicom_node.errors import ServerError, SpoolError
from dicom_node.outage import AWAY_S, Outage


def test_an_outage_is_told_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage()
    for _ in range(2):
        outage.over()
        for _ in range(3):
            assert outage.met(ServerError("connection refused")) == AWAY_S
        outage.over()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    assert said[0] == said[2]
    assert "connection refused" in said[0]
    assert "config check" in said[0]
    assert said[1] == said[3] == "the database server can be used again"
    assert not any(record.exc_info for record in caplog.records)


def test_trouble_of_a_file_is_told_each_time(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert Outage().met(SpoolError("disk full")) < AWAY_S
    assert all(record.exc_info for record in caplog.records)
    assert len(caplog.records) == 2
