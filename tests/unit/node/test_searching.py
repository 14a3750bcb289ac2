"""What a node knows of a cluster before anything is asked of it."""

import sys
import threading
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dicom_node import searching
from dicom_node.config import Cluster, Config
from dicom_node.config_file import read
from dicom_node.errors import ClusterError, ConfigError
from dicom_node.finders import cluster_search
from dicom_node.marking import Marking


def test_a_cluster_without_ray_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None in its place is how Python says that a module is not to be found.
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="which is not installed") as told:
        searching.ClusterSearch(
            Cluster(ray="127.0.0.1:6379"), tmp_path / "key", None, Marking(), str
        )
    assert "miadmark[mark,cluster]" in told.value.hint
    assert not (tmp_path / "key").exists()


def configured(tmp_path: Path, table: str) -> Config:
    return read(f"[cluster]\n{table}\n".encode(), tmp_path / "node.toml")


def opened(
    config: Config, folder: Path
) -> AbstractContextManager[searching.ClusterSearch | None]:
    return cluster_search(
        config.cluster, config.node.weights, config.node.marking, folder
    )


def test_a_configuration_names_a_cluster_and_what_lies_where(tmp_path: Path) -> None:
    config = configured(tmp_path, 'ray = "10.0.0.5:6379"\nkey = "own.key"\nmost = 3')
    assert config.cluster == Cluster(
        ray="10.0.0.5:6379", key=tmp_path / "own.key", most=3
    )
    here = read(b"", tmp_path / "node.toml")
    assert here.cluster is None
    with opened(here, tmp_path) as search:
        assert search is None


@pytest.mark.parametrize(
    "table",
    [
        'ray = "somewhere"',
        'ray = ":6379"',
        'ray = "h:port"',
        'ray = "h:1"\nleast = 0',
        'ray = "h:1"\nleast = 3\nmost = 2',
        "most = 2",
    ],
)
def test_what_cannot_work_is_refused(table: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cluster"):
        configured(tmp_path, table)


def test_a_key_is_made_in_the_state_folder(tmp_path: Path) -> None:
    config = configured(tmp_path, 'ray = "127.0.0.1:6379"')
    with opened(config, tmp_path / "state") as search:
        assert search is not None
        assert (tmp_path / "state" / "cluster.key").stat().st_mode & 0o077 == 0


def test_who_is_not_answered_blames_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A TimeoutError is an OSError, and would be taken for a full disk.
    monkeypatch.setattr(searching, "_RUN", "import time; time.sleep(600)")
    monkeypatch.setattr(searching, "_END_S", 0.1)
    monkeypatch.setattr(searching, "_ANSWER_S", 0.1)
    config = configured(tmp_path, 'ray = "127.0.0.1:6379"')
    search = opened(config, tmp_path)
    assert isinstance(search, searching.ClusterSearch)
    with search, pytest.raises(ClusterError, match="has not answered") as told:
        str(search.sameness)
    assert "ray status" in told.value.hint


def test_it_ends_though_nobody_reads_what_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_RUN", "import time; time.sleep(600)")
    monkeypatch.setattr(searching, "_END_S", 0.1)
    config = configured(tmp_path, 'ray = "127.0.0.1:6379"')
    search = opened(config, tmp_path)
    assert isinstance(search, searching.ClusterSearch)
    asked = list[Future[bytes]]()
    sending = threading.Thread(
        target=lambda: asked.append(search._send(bytes(1 << 24))), daemon=True
    )
    ending = threading.Thread(target=search.close, daemon=True)
    sending.start()
    while not search._open and sending.is_alive():
        sending.join(0.01)
    ending.start()
    ending.join(60)
    assert not ending.is_alive()
    sending.join(60)
    with pytest.raises(ClusterError, match="has died"):
        asked[0].result(0)
