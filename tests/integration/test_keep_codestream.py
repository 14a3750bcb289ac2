"""Originals that came compressed, and come back in the very bytes they came in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydicom import uid

from dicom_node.compression import put_into
from dicom_node.decompression import decompressed
from dicom_node.demo.loopback import LOOPBACK, Loopback, await_that
from dicom_node.demo.selftest import dataset, send
from dicom_node.state import State
from tests.conftest import miadmark, opened
from tests.element_values import values
from tests.receivers import storescp

J2K = uid.JPEG2000Lossless


@pytest.fixture(scope="module")
def compressed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT image in JPEG 2000, in a folder of its own."""
    file = tmp_path_factory.mktemp("original") / "ct.dcm"
    file.write_bytes(put_into(opened(images / "ct.dcm"), J2K).file.to_bytes())
    return file


def protect(original: Path, folder: Path, *options: str) -> Path:
    done = miadmark(
        *("protect", original, "--out", folder / "marked", "--state", folder / "s"),
        *("--profile", "fast", *options),
    )
    assert done.returncode == 0, done.stderr
    return folder / "marked" / original.name


@pytest.fixture(scope="module")
def once(compressed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    protect(compressed, folder, "--keep-codestream")
    return folder


@pytest.fixture
def site(once: Path, tmp_path: Path) -> Path:
    """A folder with a marked object, and the state of whoever has marked it."""
    return shutil.copytree(once, tmp_path / "site")


def the_copy(site: Path) -> Path:
    (copy,) = (site / "s" / "codestreams").iterdir()
    return copy


def restore(site: Path) -> tuple[Path, str]:
    out = site / "restored"
    done = miadmark(
        *("restore", site / "marked", "--out", out, "--state", site / "s", "--json")
    )
    assert done.returncode == 0, done.stderr
    return out / "ct.dcm", str(json.loads(done.stdout)["reason"])


def test_the_very_bytes_come_back(compressed: Path, site: Path) -> None:
    assert opened(site / "marked" / "ct.dcm").file.transfer_syntax != J2K
    back, said = restore(site)
    assert said == "compressed copy exact"
    assert opened(back).file.transfer_syntax == J2K
    assert dataset(back) == dataset(compressed)


def test_nothing_is_kept_that_nobody_asked_for(
    compressed: Path, tmp_path: Path
) -> None:
    protect(compressed, tmp_path)
    assert not (tmp_path / "s" / "codestreams").exists()
    back, said = restore(tmp_path)
    assert said == ""
    assert opened(back).file.transfer_syntax == uid.ExplicitVRLittleEndian
    assert values(opened(back)) == values(decompressed(opened(compressed)))


def test_a_damaged_copy_is_told_and_written_down(compressed: Path, site: Path) -> None:
    copy = the_copy(site)
    sealed = bytearray(copy.read_bytes())
    sealed[len(sealed) // 2] ^= 1
    copy.write_bytes(sealed)
    back, said = restore(site)
    assert said == "compressed copy damaged"
    assert values(opened(back)) == values(decompressed(opened(compressed)))
    state = State(site / "s")
    events = [entry["event"] for entry in state.audit(state.keys()).entries()]
    assert "damaged codestream" in events


def test_a_shredded_record_takes_its_copy_along(site: Path) -> None:
    copy, marked = the_copy(site), site / "marked" / "ct.dcm"
    done = miadmark("ledger", "shred", marked, "--state", site / "s")
    assert done.returncode == 0, done.stderr
    assert not copy.exists()
    done = miadmark(*("restore", marked, "--out", site / "back", "--state", site / "s"))
    assert done.returncode == 1


MORE = """
[[route]]
name = "kept"
destination = "research"
action = "mark"
keep_codestream = true
called_ae_titles = ["KEEPING"]

[[destination]]
name = "whole"
ae_title = "WHOLE"
host = "127.0.0.1"
port = {port}

[[route]]
name = "back"
destination = "whole"
action = "strip"
insecure = true
called_ae_titles = ["BACK"]
"""


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
def test_a_node_gives_them_back_to_whoever_takes_them_so(
    compressed: Path, tmp_path: Path
) -> None:
    got = tmp_path / "got"
    with (
        storescp(got, "+xa", "--bit-preserving") as port,
        Loopback(
            tmp_path / "site", profile="fast", more=MORE.format(port=port)
        ) as site,
    ):
        state = ("--state", site.folder / "state")
        terms = ("--ae-title", "WHOLE", "--insecure-address", f"{LOOPBACK}:{port}")
        given = miadmark("grant", "add", *terms, *state)
        number = given.stdout.split()[1]
        miadmark("grant", "approve", number, *state, SUDO_USER="somebody-else")
        send(site, [compressed], "KEEPING")
        site.await_sent(1)
        (marked,) = site.received("research")
        send(site, [marked], "BACK")
        await_that(lambda: any(got.iterdir()), "the original")
        site.await_sent(2)
    (back,) = got.iterdir()
    assert dataset(back) == dataset(compressed)
