"""The relay's benchmark runs, and counts what really arrived; how fast is not asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicom_node.demo.bench_relay import (
    Compared,
    Round,
    compared,
    require_arrived,
)
from dicom_node.demo.bench_relay_picture import picture
from dicom_node.errors import NodeError
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
        "Orthanc, as many as are marked": "2",
        "passed": "8",
        "passed, four senders": "8",
        "marked, fast": "2",
        "stripped": "2",
    }
    for peer in ("DCMTK", "Orthanc", "TCP_NODELAY=1"):
        assert peer in done.stdout
    assert drawn.read_text().startswith("<svg")
    assert [f.name for f in tmp_path.iterdir()] == ["relay.svg"]


def test_a_round_counts_only_with_the_right_pixels(
    images: Path, tmp_path: Path
) -> None:
    one = dcmread(images / "ct.dcm")
    original, marked = tmp_path / "original", tmp_path / "marked"
    one.save_as(original)
    source = Dataset()
    source.ReferencedSOPInstanceUID = one.SOPInstanceUID
    one.SourceImageSequence = [source]
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    one.save_as(tmp_path / "renamed")
    one.PixelData = one.PixelData[::-1]
    one.save_as(marked)
    one.SOPInstanceUID = source.ReferencedSOPInstanceUID
    one.save_as(tmp_path / "altered")
    require_arrived([original], [original], is_marked=False)
    require_arrived([original], [marked], is_marked=True)
    for arrived, is_marked in (
        ([], False),
        ([original, original], False),
        ([marked], False),
        ([tmp_path / "altered"], False),
        ([original], True),
        ([tmp_path / "renamed"], True),
        ([marked, marked], True),
    ):
        with pytest.raises(NodeError):
            require_arrived([original], arrived, is_marked=is_marked)


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


def test_what_is_stripped_is_compared_with_as_many() -> None:
    rounds = [Round("Orthanc", 100, 1.0), Round("stripped", 10, 1.0)]
    assert compared(rounds)[0].ratio == pytest.approx(0.1)
    rounds.append(Round("Orthanc, as many as are marked", 10, 0.5))
    assert compared(rounds)[0].ratio == pytest.approx(0.5)


def test_the_picture_says_what_was_found_and_with_what() -> None:
    drawn = picture([Compared("passed", 100.0, 50.0)], ["Orthanc <1.10.1>"])
    assert "2.00 times" in drawn
    assert "Orthanc &lt;1.10.1&gt;" in drawn
