"""The strip filter asks everything public before it touches a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.errors import LostRecordError, NotGrantedError
from dicom_node.filters.mark import MarkedInstance
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger
from dicom_node.opening import Opening
from miadmark_core.errors import DamagedSealError, UntrustedSignerError
from miadmark_core.sealing.signing import TrustedSigners
from tests.conftest import NOW, opened

MarkOne = Callable[[OpenInstance], MarkedInstance]


class Loud:
    """An opener that must not be asked."""

    def object_key(self, header: object) -> NoReturn:
        raise AssertionError(f"a secret was used for {header}")


@pytest.fixture(scope="module")
def marked(images: Path, mark_one: MarkOne) -> MarkedInstance:
    return mark_one(opened(images / "ct.dcm"))


@pytest.fixture
def loud(keys: Sealer) -> Opening:
    return replace(keys.opening(), openers=[Loud()])


def sent(marked: MarkedInstance) -> OpenInstance:
    return OpenInstance.of(marked.file.to_bytes(), Limits())


def refuse(*_: object) -> NoReturn:
    raise NotGrantedError("no")


def test_a_gateway_nobody_trusts(marked: MarkedInstance, loud: Opening) -> None:
    with pytest.raises(UntrustedSignerError):
        strip(sent(marked), replace(loud, trusted=TrustedSigners({}), authorise=refuse))


def test_whoever_may_not_have_it(marked: MarkedInstance, loud: Opening) -> None:
    with pytest.raises(NotGrantedError):
        strip(sent(marked), replace(loud, authorise=refuse))


def test_a_record_that_the_ledger_does_not_know(
    marked: MarkedInstance, loud: Opening, tmp_path: Path
) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(LostRecordError):
            strip(sent(marked), replace(loud, records=ledger))
        ledger.add(marked.marked_digest, marked.record, NOW)
        with pytest.raises(AssertionError, match="a secret was used"):
            strip(sent(marked), replace(loud, records=ledger))


def test_pixels_that_are_not_those_that_were_marked(
    marked: MarkedInstance, loud: Opening
) -> None:
    encoded = bytearray(marked.file.to_bytes())
    whole = sent(marked)
    element = whole.elements.get(PIXEL_DATA)
    assert element is not None
    encoded[len(encoded) - (element.end - element.value) // 2] ^= 1
    with pytest.raises(DamagedSealError, match="another object"):
        strip(OpenInstance.of(bytes(encoded), Limits()), loud)
