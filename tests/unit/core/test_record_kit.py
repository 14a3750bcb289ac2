"""Each record with one fault is refused, and by the very check that stands for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from miadmark_core.errors import Layer, SealError
from miadmark_core.sealing.record import SealedRecord
from miadmark_core.sealing.seal import seal
from miadmark_core.sealing.stanza import Stanza
from miadmark_core.sealing.suites import CLASSICAL, HYBRID, SUITES, Suite
from tests.record_kit import faulty, sound
from tests.record_writer import (
    ALL,
    EACH,
    EPOCH,
    GATEWAY,
    PAYLOAD,
    TENANT,
    Case,
    Draft,
    at,
    flipped,
)


def name(case: Case) -> str:
    return case.name


def each_faulty() -> list[Any]:
    return [pytest.param(case, id=case.name) for case in faulty()]


@pytest.mark.parametrize("case", each_faulty())
def test_a_fault_is_refused_by_its_own_check(case: Case) -> None:
    for openers in case.by:
        with pytest.raises(SealError) as caught:
            case.unseal(openers)
        assert caught.value.layer is case.layer


@pytest.mark.parametrize("case", sound(), ids=name)
def test_a_record_without_a_fault_opens(case: Case) -> None:
    for openers in case.by:
        assert case.unseal(openers) == case.draft.payload


def test_there_are_enough_of_them_and_no_two_are_called_alike() -> None:
    cases = [*faulty(), *sound()]
    assert len({case.name for case in cases}) == len(cases)
    assert len(faulty()) >= 150
    assert len(sound()) >= 20


def sealed(draft: Draft) -> SealedRecord:
    """Seal what a draft holds, with its record id and object key for chance."""
    drawn = iter((draft.record_id, draft.object_key))
    return seal(
        draft.payload,
        draft.context,
        suite=draft.suite,
        to=draft.to,
        signer=GATEWAY,
        tenant=TENANT,
        sequence=draft.sequence,
        policy=draft.policy,
        method=draft.method.decode("ascii"),
        now=datetime.fromtimestamp(draft.created, UTC),
        random=lambda size: next(drawn)[:size],
    )


@pytest.mark.parametrize("payload", [b"", PAYLOAD, bytes(200_000)], ids=len)
def test_seal_writes_what_the_description_of_the_format_says(payload: bytes) -> None:
    draft = Draft(suite=CLASSICAL, to=[EPOCH], payload=payload)
    assert sealed(draft) == draft.record  # nothing in such a record is by chance


def test_seal_writes_it_in_the_hybrid_suite_too() -> None:
    draft = Draft(suite=HYBRID, to=[EPOCH])
    record = sealed(draft)
    signature = HYBRID.signature_size - 64  # whose ML-DSA half is by chance
    assert record.header[:-signature] == draft.record.header[:-signature]
    assert record.payload == draft.record.payload


def body_flipped(stanza: Stanza) -> Stanza:
    return stanza._replace(body=flipped(0)(stanza.body))


FAULTS: dict[Layer, dict[str, Any]] = {
    Layer.FORM: {"all": lambda fields: [*fields, b"\0"]},
    Layer.SUITE: {},
    Layer.SIGNER: {"tenant": bytes(16)},
    Layer.SIGNATURE: {"signature": lambda signature, _: flipped(0)(signature)},
    Layer.CONTEXT: {},
    Layer.PAYLOAD_DIGEST: {"digest": flipped(0)},
    Layer.STANZA: {"stanzas": at(0, body_flipped)},
    Layer.COMMITMENT: {"commitment": flipped(0)},
    Layer.AUTHENTICATION: {"authentication": flipped(0)},
    Layer.PAYLOAD: {"cut": at(0, flipped(0))},
}
"""A fault for each check that is made of a record alone; all fit into one record."""


def test_every_check_has_its_faults_in_both_suites() -> None:
    counted = Counter((case.draft.suite.number, case.layer) for case in faulty())
    assert set(counted) == {(number, layer) for number in SUITES for layer in FAULTS}
    assert min(counted.values()) >= 7


@pytest.mark.parametrize("suite", SUITES.values(), ids=["classical", "hybrid"])
@pytest.mark.parametrize("first", FAULTS)
def test_of_many_faults_the_first_in_the_order_of_checks_refuses(
    suite: Suite, first: Layer
) -> None:
    order = [layer for layer in Layer if layer in FAULTS]
    rest = order[order.index(first) :]
    draft = Draft(suite=suite, to=ALL)
    for layer in rest:
        draft = replace(draft, **FAULTS[layer])
    case = Case(
        name="many faults",
        draft=draft,
        context=b"another object" if Layer.CONTEXT in rest else draft.context,
        least_suite=suite.number + (Layer.SUITE in rest),
    )
    with pytest.raises(SealError) as caught:
        case.unseal(EACH[0])
    assert caught.value.layer is first
