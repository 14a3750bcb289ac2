"""The relay's benchmark runs, and counts what really arrived; how fast is not asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_node.demo.bench_relay import Compared, Round, compared
from dicom_node.demo.bench_relay_picture import picture
from tests.conftest import miadmark


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
def test_every_object_arrives_at_the_sink_from_both(tmp_path: Path) -> None:
    drawn = tmp_path / "relay.svg"
    sizes = ("--objects", "8", "--marked", "2", "--rounds", "1")
    done = miadmark("bench", "relay", *sizes, "--picture", drawn, "--folder", tmp_path)
    assert done.returncode == 0, done.stderr
    counts = dict(
        re.findall(r"^(.+): (\d+) objects in [\d.]+ s$", done.stdout, re.MULTILINE)
    )
    assert counts == {
        "Orthanc": "8",
        "Orthanc, four senders": "8",
        "passed": "8",
        "passed, four senders": "8",
        "marked, fast": "2",
        "stripped": "2",
    }
    for peer in ("DCMTK", "Orthanc", "TCP_NODELAY=1"):
        assert peer in done.stdout
    assert drawn.read_text().startswith("<svg")
    assert [f.name for f in tmp_path.iterdir()] == ["relay.svg"]


def test_ratios_are_of_medians_with_as_many_senders() -> None:
    rounds = [Round("Orthanc", 100, seconds) for seconds in (1.0, 2.0, 50.0)] + [
        Round("Orthanc, four senders", 100, 4.0),
        Round("passed", 100, 1.0),
        Round("passed, four senders", 100, 1.0),
    ]
    one, four = compared(rounds)
    assert one == Compared("passed", 100.0, 50.0)
    assert one.ratio == pytest.approx(2.0)
    assert four.ratio == pytest.approx(4.0)


def test_the_picture_says_what_was_found_and_with_what() -> None:
    drawn = picture([Compared("passed", 100.0, 50.0)], ["Orthanc <1.10.1>"])
    assert "2.00 times" in drawn
    assert "Orthanc &lt;1.10.1&gt;" in drawn
