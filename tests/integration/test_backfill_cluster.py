"""A back-fill with marks looked for on a Ray cluster, of which a worker is killed."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.demo.loopback import await_that
from tests.archives import entries, require_done_once, small_image
from tests.ray_cluster import a_cluster, token

# It starts a dozen processes, and Ray cannot wait.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(1200)]

OBJECTS = 64
"""Four batches, for two workers."""
_SLOW = timedelta(minutes=8)
"""Two workers may have a part of one core."""


def test_a_worker_that_is_killed_costs_a_retry_and_no_object(
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
                *("--profile", "fast", "--weak-marks", "send", "--verify", "0.1"),
                "--json",
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
            before = cluster.workers()
            assert len(entries(manifest)) < OBJECTS
            assert cluster.kill_one() == 1
            assert process.wait(timeout=600) == 0, (tmp_path / "log").read_text()
            # Who was killed has a successor, or nothing was left for one.
            assert set(cluster.workers()) != set(before)
        finally:
            process.kill()
            process.wait()
    assert len(entries(manifest)) == OBJECTS
    assert {entry["status"] for entry in entries(manifest)} == {"marked"}
    assert any(entry["verified"] for entry in entries(manifest))
    require_done_once(manifest, tmp_path / "in", tmp_path / "out")
