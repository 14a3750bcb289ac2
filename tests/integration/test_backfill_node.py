"""An archive that goes through a node: handed to its hatch, and sent by its routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.cli import main
from dicom_node.demo.loopback import await_that
from dicom_node.hatch_folder import HatchFolder
from dicom_node.queue.job import JobState
from tests.archives import entries, small_objects
from tests.nodes import a_node
from tests.receivers import storescp

pytestmark = pytest.mark.peers

TABLES = """
[[hatch]]
name = "archive"
folder = "hatch"
calling_ae_title = "ARCHIVE"

[[destination]]
name = "cloud"
ae_title = "CLOUD"
host = "127.0.0.1"
port = {cloud}

[[route]]
name = "marked"
destination = "cloud"
action = "mark"
calling_ae_titles = ["ARCHIVE"]
"""


def test_an_archive_goes_through_a_node_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_objects(tmp_path / "in", 12)
    with storescp(tmp_path / "cloud") as port:
        tables = TABLES.replace("{cloud}", str(port))
        with a_node(tmp_path / "node", tables) as node:
            manifest = tmp_path / "manifest"
            command = [
                *("backfill", str(tmp_path / "in"), "--node", str(node.config)),
                *("--manifest", str(manifest)),
            ]
            assert main(command) == 0
            assert main(command) == 0
            node.await_count(JobState.SENT, 12)
            # One that was killed before it wrote down the last hands it in again.
            lines = manifest.read_bytes().splitlines(keepends=True)
            manifest.write_bytes(b"".join(lines[:-1]))
            assert main(command) == 0
            assert capsys.readouterr().out.splitlines() == [
                "12 handed",
                "12 done before",
                "1 handed, 11 done before",
            ]
            hatch = HatchFolder(tmp_path / "node" / "hatch")
            await_that(lambda: not hatch.waiting(), "an empty hatch")
            node.await_count(JobState.SENT, 12)
    assert len(list((tmp_path / "cloud").iterdir())) == 12
    done = entries(manifest)
    assert {entry["status"] for entry in done} == {"handed"}
    assert all(entry["before"] == entry["after"] for entry in done)


def test_a_node_without_a_hatch_takes_no_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_objects(tmp_path / "in", 1)
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nae_title = "GATEWAY"\nstate = "{tmp_path / "state"}"\n', "utf-8"
    )
    assert main(["backfill", str(tmp_path / "in"), "--node", str(config)]) == 1
    assert "has no [[hatch]]" in capsys.readouterr().err


def test_a_node_with_several_hatches_is_asked_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_objects(tmp_path / "in", 1)
    config = tmp_path / "node.toml"
    hatches = "".join(
        f'[[hatch]]\nname = "{name}"\nfolder = "{tmp_path / name}"\n'
        f'calling_ae_title = "ONE"\ncalled_ae_title = "GATEWAY"\n'
        for name in ("first", "second")
    )
    config.write_text(
        f'[node]\nae_title = "GATEWAY"\nstate = "{tmp_path / "state"}"\n{hatches}',
        "utf-8",
    )
    command = ["backfill", str(tmp_path / "in"), "--node", str(config)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "several hatches" in said
    assert "--hatch says which: first, second" in said
    assert main([*command, "--hatch", "third"]) == 1
    assert "no hatch 'third'" in capsys.readouterr().err
    assert main([*command, "--hatch", "second"]) == 0
    assert not (tmp_path / "first").exists()
    assert len(HatchFolder(tmp_path / "second").waiting()) == 1


@pytest.mark.parametrize("alone", [["--workers", "8"], ["--gpus"]])
def test_what_is_said_of_a_cluster_is_not_ignored_without_one(
    tmp_path: Path, alone: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    command = ["backfill", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*command, "--state", str(tmp_path / "state"), *alone]) == 1
    assert f"{alone[0]} without --ray" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
