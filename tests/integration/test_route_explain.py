"""What is told of a route is what happens on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.demo.loopback import Loopback
from dicom_node.demo.selftest import send
from dicom_node.errors import SendRefusedError
from tests.conftest import miadmark

ROUTES = """
[[destination]]
name = "a"
ae_title = "A"
host = "127.0.0.1"

[[route]]
name = "abdomen"
destination = "a"
action = "mark"
not_images = "drop"
called_ae_titles = ["MIADMARK", "OTHER"]
where = { ImageType = ["ORIGINAL", "!LOCALIZER"], Manufacturer = ["TOSHIBA*", "GE*"] }

[[route]]
name = "heads"
destination = "a"
action = "pass"
modalities = ["MR"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(ROUTES)
    return path


def test_each_route_is_told_with_what_it_wants(config: Path, images: Path) -> None:
    done = miadmark("route", "explain", images / "ct.dcm", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "taken      abdomen: mark, to a (127.0.0.1:11112)" in done.stdout
    assert "not taken  heads" in done.stdout
    assert "Modality is 'CT', wanted 'MR'" in done.stdout


def test_a_report_is_told_to_be_none_to_mark(config: Path, images: Path) -> None:
    done = miadmark(
        *("route", "explain", images / "report-sr.dcm", "--config", config),
        *("--called", "OTHER", "--json"),
    )
    first, _, last = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert first["not_a_picture"] == "drop"
    assert not first["taken"]
    assert last["says"] == "no route takes it: refused with 0x0124"


def test_a_title_that_nobody_has_is_told(config: Path, images: Path) -> None:
    done = miadmark(
        *("route", "explain", images / "ct.dcm", "--config", config),
        *("--called", "NOBODY"),
    )
    assert done.returncode == 1
    assert "does not answer to 'NOBODY'" in done.stdout


MORE = """
[[route]]
name = "by station"
destination = "research"
action = "pass"
called_ae_titles = ["STATION"]
where.Manufacturer = ["{pattern}"]
"""


def test_a_node_takes_what_is_told_to_be_taken(images: Path, tmp_path: Path) -> None:
    more = MORE.format(pattern="GE*")
    with Loopback(tmp_path / "yes", profile="fast", more=more) as site:
        send(site, [images / "ct.dcm"], "STATION")
        site.await_sent(1)
    more = MORE.format(pattern="!GE*")
    with (
        Loopback(tmp_path / "no", profile="fast", more=more) as site,
        pytest.raises(SendRefusedError, match="0x0124"),
    ):
        send(site, [images / "ct.dcm"], "STATION")
