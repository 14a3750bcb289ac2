"""Nothing in a record can be changed: every bit, every cut, and pieces of other records.

Both suites, and both ways in which records travel: *mediated*, sealed to the gateway's
epoch and the recovery key and opened by the gateway; *direct*, sealed to a recipient as
well and opened by that one. An error other than ours would fail these tests too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from miadmark_core.errors import SealError
from miadmark_core.sealing.record import SealedRecord
from miadmark_core.sealing.seal import unseal
from miadmark_core.sealing.stanza import Opener
from miadmark_core.sealing.suites import CLASSICAL, HYBRID, Suite
from tests.record_writer import (
    ALL,
    CONTEXT,
    EPOCH,
    PAYLOAD,
    RECIPIENT,
    TRUSTED,
    Draft,
    flipped,
)

MEDIATED = {
    "classical, mediated": (Draft(suite=CLASSICAL, to=ALL[:2]), EPOCH),
    "hybrid, mediated": (Draft(suite=HYBRID, to=ALL[:2]), EPOCH),
}
DIRECT = {
    "classical, direct": (Draft(suite=CLASSICAL), RECIPIENT),
    "hybrid, direct": (Draft(suite=HYBRID), RECIPIENT),
}
EVERY = MEDIATED | DIRECT

ways = pytest.mark.parametrize(("draft", "opener"), EVERY.values(), ids=EVERY)


def opens(record: SealedRecord, opener: Opener, context: bytes = CONTEXT) -> bool:
    try:
        unseal(record, context, openers=[opener], trusted=TRUSTED)
    except SealError:
        return False
    return True


def flips(value: bytes) -> Iterator[bytes]:
    for position in range(len(value)):
        for bit in range(8):
            yield flipped(position, bit)(value)


@ways
def test_no_flipped_bit_is_accepted(draft: Draft, opener: Opener) -> None:
    header, payload = draft.record
    assert opens(draft.record, opener)
    changed = [SealedRecord(h, payload) for h in flips(header)]
    changed += [SealedRecord(header, p) for p in flips(payload)]
    assert len(changed) == 8 * (len(header) + len(payload))
    assert not any(opens(record, opener) for record in changed)


@ways
def test_no_cut_is_accepted(draft: Draft, opener: Opener) -> None:
    header, payload = draft.record
    for size in range(len(header)):
        assert not opens(SealedRecord(header[:size], payload), opener)
        assert not opens(SealedRecord(header[-size:] if size else b"", payload), opener)
    for size in range(len(payload)):
        assert not opens(SealedRecord(header, payload[:size]), opener)
        assert not opens(SealedRecord(header, payload[len(payload) - size :]), opener)


@ways
def test_no_extension_is_accepted(draft: Draft, opener: Opener) -> None:
    header, payload = draft.record
    for size in range(1, 17):
        for more in (bytes(size), header[:size]):
            assert not opens(SealedRecord(header + more, payload), opener)
            assert not opens(SealedRecord(header, payload + more), opener)


@ways
def test_no_splice_of_two_records_is_accepted(draft: Draft, opener: Opener) -> None:
    chance = np.random.default_rng(20_260_101)
    twin = replace(
        draft, record_id=b"\x02" * 16, object_key=b"\x0c" * 32, payload=PAYLOAD[::-1]
    )
    tried = 0
    while tried < 1000:
        part = int(chance.random() < 0.1)  # the payload, now and then
        host, guest = draft.record[part], twin.record[part]
        start, end = sorted(int(n) for n in chance.integers(len(host) + 1, size=2))
        shift = int(chance.integers(-8, 9)) if chance.random() < 0.5 else 0
        piece = guest[max(start + shift, 0) : max(end + shift, 0)]
        spliced = host[:start] + piece + host[end:]
        if spliced in {host, guest}:
            continue
        record = list(draft.record)
        record[part] = spliced
        assert not opens(SealedRecord(*record), opener)
        tried += 1


@pytest.mark.parametrize("suite", [CLASSICAL, HYBRID], ids=["classical", "hybrid"])
def test_of_records_and_objects_only_those_that_belong_together_open(
    suite: Suite,
) -> None:
    contexts = [f"object {number}".encode() for number in range(32)]
    records = [
        Draft(suite=suite, record_id=bytes([n]) * 16, context=context).record
        for n, context in enumerate(contexts)
    ]
    together = {
        (i, j)
        for i, record in enumerate(records)
        for j, context in enumerate(contexts)
        if opens(record, RECIPIENT, context)
    }
    assert together == {(i, i) for i in range(32)}


@pytest.mark.parametrize("suite", [CLASSICAL, HYBRID], ids=["classical", "hybrid"])
def test_of_headers_and_payloads_only_those_that_belong_together_open(
    suite: Suite,
) -> None:
    records = [Draft(suite=suite, record_id=bytes([n]) * 16).record for n in range(32)]
    together = {
        (i, j)
        for i, record in enumerate(records)
        for j, other in enumerate(records)
        if opens(SealedRecord(record.header, other.payload), RECIPIENT)
    }
    assert together == {(i, i) for i in range(32)}
