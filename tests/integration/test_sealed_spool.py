"""What waits in a node is nobody's to read but the node's, and reaches its receiver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.queue.job import JobState
from dicom_node.state import State

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

CONFIG = """\
[node]
ae_title = "GATEWAY"
port = {port}
state = "state"

[storage]
encrypt = {encrypt}

[retry]
first_wait_s = 1.0
longest_wait_s = 1.0

[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}
transfer_syntaxes = [{syntax}, "as-is"]

[[route]]
name = "onwards"
destination = "archive"
action = "pass"
"""


class Site:
    """A node, its sender and its archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.archive = free_ports(2)
        self.state = State(folder / "state")
        self.config = folder / "node.toml"
        (folder / "archive").mkdir()

    def serve(self, *, encrypt: bool, syntax: str = "as-is") -> subprocess.Popen[str]:
        self.config.write_text(
            CONFIG.format(
                port=self.port,
                archive=self.archive,
                encrypt=str(encrypt).lower(),
                syntax=f'"{syntax}"',
            )
        )
        return subprocess.Popen(
            [sys.executable, "-m", "dicom_node", "serve", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def serving(self, *, encrypt: bool, syntax: str = "as-is") -> Iterator[None]:
        with self.serve(encrypt=encrypt, syntax=syntax) as process:
            assert process.stdout is not None
            try:
                assert "GATEWAY listens on" in process.stdout.readline()
                yield
            finally:
                process.terminate()

    @contextmanager
    def archiving(self) -> Iterator[Path]:
        folder = self.folder / "archive"
        with subprocess.Popen(
            [
                *("storescp", "--aetitle", "ARCHIVE", "--prefer-jls-lossless"),
                *("--output-directory", str(folder), "--bit-preserving"),
                str(self.archive),
            ]
        ) as process:
            try:
                yield folder
            finally:
                process.terminate()

    def send(self, *paths: Path) -> None:
        subprocess.run(
            [
                *("storescu", "-R", "-aec", "GATEWAY", LOOPBACK, str(self.port)),
                *map(str, paths),
            ],
            check=True,
            env=os.environ | {"TCP_NODELAY": "1"},
        )

    def spooled(self) -> list[Path]:
        return sorted(p for p in (self.folder / "state/spool").iterdir() if p.is_file())

    def sent(self) -> int:
        queue = self.state.queue()
        try:
            return queue.counts()[JobState.SENT]
        finally:
            queue.close()


def objects(images: Path, folder: Path, count: int) -> list[Path]:
    one, made = dcmread(images / "ct.dcm"), []
    for number in range(count):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.save_as(folder / f"{number}.dcm")
        made.append(folder / f"{number}.dcm")
    return made


def test_the_spool_is_sealed_and_only_its_keys_open_it(
    images: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    before, after = objects(images, tmp_path, 2)
    pixels = dcmread(before).PixelData[5000:5064]
    with site.serving(encrypt=False):
        site.send(before)
    (plain,) = site.spooled()
    assert pixels in plain.read_bytes()
    with site.serving(encrypt=True):
        site.send(after)
        sealed = next(path for path in site.spooled() if path != plain)
        content = sealed.read_bytes()
        assert pixels not in content
        assert b"DICM" not in content
        assert after.stat().st_size // 2 < len(content)

    keys = tmp_path / "state" / "keys"
    aside = keys.rename(tmp_path / "aside")
    for _ in range(2):  # without keys, and with others
        with site.serve(encrypt=True) as process:
            said = process.communicate()[1]
        assert process.returncode == 1
        assert "the spool holds files that" in said
        assert "backup" in said
        if not keys.exists():
            State(tmp_path / "other").keys()
            (tmp_path / "other" / "keys").rename(keys)
    keys.rename(tmp_path / "other" / "keys")
    aside.rename(keys)

    # Those of a time without keys are worked off beside the others.
    with site.archiving() as archive, site.serving(encrypt=True):
        await_that(lambda: site.sent() == 2, "both to be sent")
        assert not site.spooled()
    arrived = {dcmread(path).SOPInstanceUID: path for path in archive.iterdir()}
    for original in (before, after):
        wanted = dcmread(original)
        assert dcmread(arrived[wanted.SOPInstanceUID]).PixelData == wanted.PixelData


def test_what_is_put_into_another_syntax_on_its_way_is_sealed_meanwhile(
    images: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    (original,) = objects(images, tmp_path, 1)
    with site.archiving() as archive, site.serving(encrypt=True, syntax="jpeg-ls"):
        site.send(original)
        await_that(lambda: site.sent() == 1, "it to be sent")
        assert not site.spooled()
    (arrived,) = map(dcmread, archive.iterdir())
    assert arrived.file_meta.TransferSyntaxUID.is_compressed
    assert (arrived.pixel_array == dcmread(original).pixel_array).all()
