"""What a status says of counts, rates and room: figures in, sentences out."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.queue.tally import Tally
from dicom_node.routing import Action, Route
from dicom_node.status import Status, status_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MB = 1 << 20


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        node=Listener(state=tmp_path),
        destinations=(Destination(name="research", ae_title="R", host="127.0.0.1"),),
        routes=(Route(name="out", destination="research", action=Action.MARK),),
    )


def status(config: Config, *tallies: Tally, free_mb: int = 9000) -> Status:
    disk = os.statvfs_result((MB, MB, 0, 0, free_mb, 90_000, 0, 50_000, 0, 255))
    return status_of(tallies, config, disk, NOON)


def tally(**counts: int) -> Tally:
    oldest = NOON - timedelta(seconds=90) if counts.get("waiting") else None
    return Tally(route="out", destination="research", oldest=oldest, **counts)


def test_marking_that_is_slower_than_arrival_is_said(config: Config) -> None:
    slow = tally(received=60, sent=20, waiting=40, received_lately=50, sent_lately=20)
    found = status(config, slow)
    (lane,) = found.lanes
    assert lane.is_behind
    assert lane.done_in_s is None
    assert lane.oldest_s == 90
    assert "marking is slower than arrival" in found.lines()[0]


def test_a_queue_that_drains_says_when_it_is_done(config: Config) -> None:
    found = status(
        config,
        tally(received=60, sent=50, waiting=10, received_lately=5, sent_lately=30),
    )
    (lane,) = found.lanes
    assert not lane.is_behind
    assert lane.done_in_s == 120  # ten, and five a minute more leave than come


def test_what_is_done_is_behind_nothing(config: Config) -> None:
    (lane,) = status(config, tally(received=9, sent=9, received_lately=9)).lanes
    assert not lane.is_behind
    assert lane.oldest_s is None


def test_counts_that_do_not_add_up_are_said(config: Config) -> None:
    found = status(config, tally(received=3, sent=1, waiting=1))
    assert not found.is_exact
    assert not found.to_json()["is_exact"]
    assert "DOES NOT ADD UP" in found.lines()[0]


@pytest.mark.parametrize("free_mb", [9000, 1000])
def test_a_full_disk_takes_nothing_in(config: Config, free_mb: int) -> None:
    takes_in = free_mb > 1024
    found = status(config, free_mb=free_mb)
    assert found.to_json()["disk"] == {
        "free_mb": free_mb,
        "least_free_mb": 1024,
        "free_inodes": 50_000,
        "least_free_inodes": 10_000,
        "takes_in": takes_in,
    }
    assert ("nothing is taken in" in found.lines()[-1]) is not takes_in
