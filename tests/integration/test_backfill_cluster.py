"""A back-fill with marks looked for on a Ray cluster, of which the workers are killed."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.backfill.filling import Sample
from dicom_node.demo.loopback import await_that
from tests.archives import digests, entries, require_done_once, small_image
from tests.ray_cluster import a_cluster, token

# It starts a dozen processes, and Ray cannot wait.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(1200)]

OBJECTS = 64
"""Four batches, for two workers."""
SAMPLE = Sample(0.1, b"seed")
_LOST = b"lost a worker of the cluster"
_SLOW = timedelta(minutes=8)
"""Two workers may have a part of one core."""


def test_workers_that_are_killed_cost_retries_and_no_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in token().items():
        monkeypatch.setenv(name, value)
    for number in range(OBJECTS):
        small_image(tmp_path / "in" / f"{number}.dcm", number)
    manifest = tmp_path / "manifest"
    with a_cluster(cores=2) as cluster, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dicom_node", "backfill", tmp_path / "in"),
                *("--out", tmp_path / "out", "--state", tmp_path / "state"),
                *("--manifest", manifest, "--ray", cluster.address, "--workers", "2"),
                *("--profile", "fast", "--weak-marks", "send", "--json"),
                *("--verify", str(SAMPLE.share), "--seed", SAMPLE.seed.decode()),
            ],
            stdout=log,
            stderr=log,
        )
        try:
            await_that(
                lambda: len(cluster.workers()) == 2 or process.poll() is not None,
                f"two workers; see {tmp_path / 'log'}",
                within=_SLOW,
            )
            await_that(
                lambda: bool(manifest.exists() and entries(manifest)),
                f"the first object; see {tmp_path / 'log'}",
                within=_SLOW,
            )
            assert len(entries(manifest)) < OBJECTS
            assert cluster.kill_all()
            assert process.wait(timeout=600) == 0, (tmp_path / "log").read_text()
            # The last batch is asked for when the first is done: whether a worker was
            # at a search or idle, somebody had to find out that it is gone.
            assert _LOST in (tmp_path / "log").read_bytes()
        finally:
            process.kill()
            process.wait()
    assert len(entries(manifest)) == OBJECTS
    assert {entry["status"] for entry in entries(manifest)} == {"marked"}
    verified = {entry["source"] for entry in entries(manifest) if entry["verified"]}
    names = digests(tmp_path / "in")
    assert verified == {name for name in names if SAMPLE.holds(name)} != set()
    require_done_once(manifest, tmp_path / "in", tmp_path / "out")
