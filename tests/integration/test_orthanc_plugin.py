"""Our plugin in a running Orthanc (Debian's orthanc and orthanc-python)."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError

import pytest

from dicom_node.demo.loopback import LOOPBACK, Loopback, await_that
from dicom_node.demo.selftest import dataset, pixels
from dicom_node.elements import Limits
from dicom_node.hatch_folder import HatchFolder
from dicom_node.instance import OpenInstance
from tests.orthanc import PLUGIN, TITLE, Orthanc, an_orthanc, with_plugin

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

_HATCHES = """
[[hatch]]
name = "to be marked"
folder = "marking"

[[hatch]]
name = "to be stripped"
folder = "stripping"
called_ae_title = "MIADSTRIP"
"""
_UNMARKED = """
[[hatch]]
name = "to be passed"
folder = "passing"
called_ae_title = "MIADPASS"

[[route]]
name = "to research, as it came"
destination = "research"
action = "pass"
called_ae_titles = ["MIADPASS"]
"""


_SLOW = """
import runpy, time
from pathlib import Path
import orthanc

at_once = orthanc.RestApiGet

def later(path):
    while not Path({may_look!r}).exists():
        time.sleep(0.05)
    return at_once(path)

orthanc.RestApiGet = later
runpy.run_path({plugin!r})
"""
_BLIND = """
import runpy
import orthanc

orthanc.RestApiGet = lambda path: b"[]"
runpy.run_path({plugin!r})
"""


@pytest.fixture
def hatch(tmp_path: Path) -> HatchFolder:
    folder = HatchFolder(tmp_path / "hatch")
    folder.make()
    return folder


def send(orthanc: Orthanc, *files: Path) -> str:
    """Send with DCMTK, and return what it says."""
    target = ["--call", TITLE, LOOPBACK, str(orthanc.dicom_port)]
    done = subprocess.run(
        ["storescu", "--verbose", *target, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def handed_in(hatch: HatchFolder) -> list[bytes]:
    """The data sets that lie in a hatch."""
    return [bytes(dataset(file)) for file in hatch.waiting()]


class TestEgress:
    def test_what_arrives_leaves_marked_and_comes_back_identical(
        self, tmp_path: Path, images: Path
    ) -> None:
        original = images / "ct.dcm"
        with Loopback(tmp_path / "node", profile="fast", more=_HATCHES) as node:
            marking, stripping = node.folder / "marking", node.folder / "stripping"
            with an_orthanc(
                tmp_path / "a", {}, **with_plugin("egress", marking)
            ) as orthanc:
                # Not with DCMTK's storescu, which leaves the trailing padding out.
                orthanc.post("/instances", original.read_bytes())
                assert orthanc.instances() == []
                node.await_sent(1)
            (marked,) = node.received("research")
            assert pixels(marked) != pixels(original)
            with an_orthanc(
                tmp_path / "b", {}, **with_plugin("egress", stripping)
            ) as orthanc:
                orthanc.post("/instances", marked.read_bytes())
                assert orthanc.instances() == []
                node.await_sent(2)
            (restored,) = node.received("archive")
            assert dataset(restored) == dataset(original)

    def test_a_node_that_is_down_and_a_killed_orthanc_lose_nothing(
        self, tmp_path: Path, images: Path
    ) -> None:
        files = sorted(images.glob("brain-*.dcm"))
        passing = tmp_path / "node" / "passing"
        HatchFolder(passing).make()
        plugin = with_plugin("egress", passing)
        with an_orthanc(tmp_path / "a", {}, **plugin) as orthanc:
            assert send(orthanc, *files).count("(Success)") == len(files)
            assert orthanc.process is not None
            orthanc.process.kill()
        assert len(HatchFolder(passing).waiting()) == len(files)
        with Loopback(tmp_path / "node", more=_UNMARKED) as node:
            node.await_sent(len(files))
            assert len(node.received("research")) == len(files)
        assert HatchFolder(passing).waiting() == []

    def test_what_arrives_before_it_has_looked_waits_until_it_has(
        self, tmp_path: Path, hatch: HatchFolder, images: Path
    ) -> None:
        slow, may_look = tmp_path / "slow.py", tmp_path / "may look"
        slow.write_text(_SLOW.format(plugin=str(PLUGIN), may_look=str(may_look)))
        plugin = with_plugin("egress", hatch.folder, script=slow)
        object_ = (images / "ct.dcm").read_bytes()
        with (
            an_orthanc(tmp_path / "a", {}, **plugin) as orthanc,
            ThreadPoolExecutor(1) as sender,
        ):
            sent = sender.submit(orthanc.post, "/instances", object_)
            time.sleep(0.5)
            is_answered = sent.done()
            may_look.touch()
            sent.result()
            assert not is_answered
            assert orthanc.instances() == []
        assert len(hatch.waiting()) == 1

    def test_one_that_cannot_look_takes_nothing_and_stops(
        self, tmp_path: Path, hatch: HatchFolder
    ) -> None:
        blind = tmp_path / "blind.py"
        blind.write_text(_BLIND.format(plugin=str(PLUGIN)))
        plugin = with_plugin("egress", hatch.folder, script=blind)
        with an_orthanc(tmp_path / "a", {}, awaited=False, **plugin) as orthanc:
            assert orthanc.process is not None
            orthanc.process.wait(timeout=60)
        said = (tmp_path / "a" / "orthanc.log").read_text()
        assert "it cannot be seen whether this Orthanc is empty" in said
        assert hatch.waiting() == []

    def test_what_cannot_be_handed_in_is_refused_and_not_kept(
        self, tmp_path: Path, hatch: HatchFolder, images: Path
    ) -> None:
        with an_orthanc(
            tmp_path / "a", {}, **with_plugin("egress", hatch.folder)
        ) as orthanc:
            hatch.folder.rename(tmp_path / "elsewhere")
            assert "OutOfResources" in send(orthanc, images / "ct.dcm")
            with pytest.raises(HTTPError):
                orthanc.post("/instances", (images / "ct.dcm").read_bytes())
            assert orthanc.instances() == []
            (tmp_path / "elsewhere").rename(hatch.folder)
            assert "(Success)" in send(orthanc, images / "ct.dcm")
        assert len(hatch.waiting()) == 1

    def test_an_orthanc_that_holds_instances_is_stopped(
        self, tmp_path: Path, hatch: HatchFolder, images: Path
    ) -> None:
        with an_orthanc(tmp_path / "a", {}) as orthanc:
            assert orthanc.stored((images / "ct.dcm").read_bytes())
        plugin = with_plugin("egress", hatch.folder)
        with an_orthanc(tmp_path / "a", {}, awaited=False, **plugin) as orthanc:
            assert orthanc.process is not None
            orthanc.process.wait(timeout=60)
        said = (tmp_path / "a" / "orthanc.log").read_text()
        assert "this Orthanc holds 1 instances, and an egress keeps none" in said
        with an_orthanc(tmp_path / "a", {}) as orthanc:
            assert len(orthanc.instances()) == 1

    def test_a_misspelt_section_is_no_reason_to_start_without_it(
        self, tmp_path: Path, hatch: HatchFolder
    ) -> None:
        plugin = with_plugin("egres", hatch.folder)
        with an_orthanc(tmp_path / "a", {}, awaited=False, **plugin) as orthanc:
            assert orthanc.process is not None
            assert orthanc.process.wait(timeout=60) != 0
        said = (tmp_path / "a" / "orthanc.log").read_text()
        assert "MiadMark: Role = 'egres'" in said


class TestFeed:
    def test_copies_of_stable_studies_are_handed_in_once_and_late_objects_alone(
        self, tmp_path: Path, hatch: HatchFolder, images: Path
    ) -> None:
        files = [images / "ct.dcm", *sorted(images.glob("chest-*.dcm"))]
        plugin = with_plugin("feed", hatch.folder)
        with an_orthanc(tmp_path / "a", {}, **plugin) as orthanc:
            assert b'"feed"' in orthanc.get("/miadmark")
            for file in files[:2]:
                assert orthanc.stored(file.read_bytes())
            assert orthanc.process is not None
            orthanc.process.kill()  # before its studies are stable
        with an_orthanc(tmp_path / "a", {}, **plugin) as orthanc:
            await_that(
                lambda: len(hatch.waiting()) == 2, "copies", within=timedelta(minutes=1)
            )
            late = orthanc.stored(files[2].read_bytes())
            await_that(
                lambda: len(hatch.waiting()) == 3,
                "the late",
                within=timedelta(minutes=1),
            )
            kept = orthanc.get(f"/instances/{late}/file")
        with an_orthanc(tmp_path / "a", {}, **plugin) as orthanc:
            assert orthanc.stored((images / "report-sr.dcm").read_bytes())
            await_that(
                lambda: len(hatch.waiting()) == 4,
                "another",
                within=timedelta(minutes=1),
            )
            assert len(orthanc.instances()) == 4
        assert len(set(handed_in(hatch))) == 4
        assert OpenInstance.of(kept, Limits()).file.dataset == dataset(files[2])
