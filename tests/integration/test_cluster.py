"""Marks looked for on a Ray cluster: two workers of this machine, and some that die.

``MIADMARK_CLUSTER_OBJECTS=500`` makes the study longer; then with ``--timeout 0``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.config import Cluster
from dicom_node.demo.loopback import await_that
from dicom_node.errors import ClusterError
from dicom_node.finders import finder_of
from dicom_node.marking import Marking, Profile
from dicom_node.queue.job import JobState
from dicom_node.searching import ClusterSearch
from miadmark_core.search.finder import BATCH, Finder, Wanted
from tests.nodes import Node, a_node
from tests.ray_cluster import RayCluster, a_cluster, token
from tests.receivers import storescp
from tests.studies import copies

pytestmark = pytest.mark.alone  # it starts a dozen processes, and Ray cannot wait

OBJECTS = int(os.environ.get("MIADMARK_CLUSTER_OBJECTS", "10"))
KILLS_EVERY_S = 5.0
MARKING = Marking(profile=Profile.FAST)

TABLES = """
[cluster]
ray = "ADDRESS"
least = 2
most = 2
[[destination]]
name = "research"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = RECEIVER
[[route]]
name = "all"
action = "mark"
destination = "research"
not_images = "hold"
other_pixels = "hold"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in token().items():
            patch.setenv(name, value)
        with a_cluster(cores=2) as running:
            yield running


@pytest.fixture(scope="module")
def here() -> Finder:
    return finder_of(None, MARKING)


def search(
    cluster: RayCluster, key: Path, here: Finder, most: int = 2
) -> ClusterSearch:
    settings = Cluster(ray=cluster.address, least=1, most=most)
    return ClusterSearch(settings, key, None, MARKING, lambda: here.digest)


def frames(count: int) -> list[Wanted]:
    random = np.random.default_rng(1)
    return [
        Wanted(
            shown=random.random((90 + number, 80, 1), np.float32),
            peak=8 / 255,
            modality="DX",
            body_part="CHEST",
            seed=number,
        )
        for number in range(count)
    ]


def test_the_cluster_finds_what_is_found_here_with_as_many_workers_as_there_is_work_for(
    cluster: RayCluster, here: Finder, tmp_path: Path
) -> None:
    wanted = frames(BATCH + 1)
    with search(cluster, tmp_path / "key", here) as there:
        assert there.sameness.startswith(here.digest)
        assert len(cluster.workers()) == 1
        found = there.find(wanted)
        assert len(found) == len(wanted)
        # In order: the last went in a request of its own, as it does here.
        (last,) = here.find(wanted[-1:])
        agree = np.corrcoef(found[-1].steps.ravel(), last.steps.ravel())[0, 1]
        assert agree > 0.9
        assert found[-1].misled.keys() == last.misled.keys()
        # The second request was worth a second worker.
        await_that(lambda: len(cluster.workers()) == 2, "a second worker")


def test_a_worker_that_would_search_otherwise_is_not_used(
    cluster: RayCluster, here: Finder, tmp_path: Path
) -> None:
    settings = Cluster(ray=cluster.address, most=1)
    key = tmp_path / "key"
    with ClusterSearch(settings, key, None, MARKING, lambda: "search 0") as there:
        with pytest.raises(ClusterError, match="search 0") as told:
            there.find(frames(1))
        assert here.digest in str(told.value)
        assert "same version" in told.value.hint


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
def test_a_node_whose_workers_die_all_the_time_sends_each_object_once(
    cluster: RayCluster, images: Path, tmp_path: Path
) -> None:
    done, killed = threading.Event(), 0

    def kill(node: Node) -> None:
        nonlocal killed
        sent = -1
        while not done.wait(0.2 if not killed else KILLS_EVERY_S):
            # A busy machine takes longer than that until a worker is up, and again
            # until it has found something: nothing would ever be sent.
            if (now_sent := node.counts()[JobState.SENT]) > sent:
                was_there = cluster.kill_one()
                killed, sent = killed + was_there, now_sent if was_there else sent

    files = copies(images / "chest-xray-pneumonia.dcm", tmp_path / "study", OBJECTS)
    with storescp(tmp_path / "research") as port:
        tables = 'profile = "fast"\nweak_marks = "send"\n' + TABLES.replace(
            "ADDRESS", cluster.address
        ).replace("RECEIVER", str(port))
        with a_node(tmp_path / "node", tables) as node:
            assert node.send(*files) == 0
            killer = threading.Thread(target=kill, args=[node])
            killer.start()
            try:
                await_that(
                    lambda: node.counts()[JobState.SENT] == OBJECTS,
                    f"all sent; see {node.folder / 'node.log'}",
                    within=timedelta(seconds=180 + 20 * OBJECTS),
                )
            finally:
                done.set()
                killer.join()
            counts = node.counts()
            assert sum(counts.values()) == counts[JobState.SENT]
    received = [dcmread(path) for path in (tmp_path / "research").iterdir()]
    assert len(received) == OBJECTS
    assert len({one.SOPInstanceUID for one in received}) == OBJECTS
    original = dcmread(files[0]).PixelData
    assert all(one.PixelData != original for one in received)
    assert killed > 0


def test_a_cluster_that_is_not_there_is_waited_for(
    here: Finder, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_USE_TLS"):
            patch.delenv(name, raising=False)
        settings = Cluster(ray="127.0.0.2:9")
        with (
            ClusterSearch(
                settings, tmp_path / "key", None, MARKING, lambda: here.digest
            ) as there,
            pytest.raises(ClusterError, match="could run anything") as told,
        ):
            there.find(frames(1))
        assert "token" in told.value.hint
        other = replace(settings, ray="192.0.2.77:9")
        with (
            ClusterSearch(
                other, tmp_path / "key", None, MARKING, lambda: here.digest
            ) as there,
            pytest.raises(ClusterError, match="in the clear"),
        ):
            there.find(frames(1))
