"""A soak's short form; ``miadmark bench soak`` has the long one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.soak import Size, Soak
from dicom_node.demo.soak_objects import Mix, Odd, Piece, Templates, Way
from dicom_node.demo.soak_watch import Sample, growth
from dicom_node.errors import NodeError

MIX = Mix(objects=120, poison=0.1, marked=1, killers=0)


def test_everything_is_accounted_for(tmp_path: Path) -> None:
    """A receiver that comes and goes, objects that are odd, and every one accounted."""
    said: list[str] = []
    size = Size(mix=MIX, senders=2, well_s=2.0, ill_s=0.5)
    told = Soak(tmp_path, size, said.append).run()
    assert told.wrong == [], "\n".join([*told.lines(), *said])
    assert set(told.answers) == {"0000", "c000", "a900", "0111", "context"}
    assert told.answers.total() == MIX.objects


def test_every_kind_of_odd_object_is_there() -> None:
    pieces = list(MIX.pieces())
    assert {p.odd for p in pieces} >= {*Odd} - {Odd.KILLER} | {None}
    assert {p.way for p in pieces if p.odd is None} == {*Way}
    assert len({p.uid for p in pieces}) == MIX.objects
    (killer,) = list(Mix(objects=20, poison=0, marked=0, killers=1).pieces())[:1]
    assert killer.odd is Odd.KILLER
    with pytest.raises(NodeError):
        Mix(objects=2, poison=0, marked=0, killers=0)


def test_objects_differ_and_are_what_their_number_says(tmp_path: Path) -> None:
    templates, digests = Templates(), set()
    for number in range(300):
        piece = Piece(number, Way.PASSED)
        (tmp_path / "one").write_bytes(templates.original(piece))
        one = dcmread(tmp_path / "one")
        assert one.SOPInstanceUID == piece.uid
        assert one.PixelData == templates.pixels(number)
        digests.add(hashlib.sha256(one.PixelData).digest())
    assert len(digests) == 300


def test_growth_is_told_from_warming_up() -> None:
    def samples(*sizes: int) -> list[Sample]:
        return [Sample(float(n), size, size, 9) for n, size in enumerate(sizes)]

    flat = growth("worker", samples(10, 2000, *[50_000] * 14))
    assert (flat.grown_mb, flat.grown_descriptors) == (0.0, 0)
    leaking = growth("worker", samples(*range(0, 16_384, 1024)))
    assert leaking.grown_mb == 8.0
    assert leaking.mb_per_hour == pytest.approx(3600)
