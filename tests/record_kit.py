"""Records by name: sound ones, and ones with a single fault and the check to refuse it.

A fault is made so that it is reached. Whatever is checked before it holds, and all that
depends on it is made again: the wrong commitment is authenticated with the right key and
signed by the trusted gateway. So a record that is refused at another layer than its own
is a failure of the kit or of the package, not a success.

Faults are named where they are made, one module a kind: form, what is public, signature,
stanza, and what only the object key shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

from miadmark_core.errors import Layer
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.signing import Trust, TrustedSigners
from miadmark_core.sealing.stanza import Opener, Wrapper
from miadmark_core.sealing.suites import SUITES, Suite
from tests.record_form_faults import form_faults
from tests.record_public_faults import public_faults
from tests.record_secret_faults import LARGE, secret_faults
from tests.record_stanza_faults import stanza_faults
from tests.record_writer import (
    ALL,
    CHUNK,
    EACH,
    EPOCH,
    GATEWAY,
    OTHER_EPOCH,
    OTHER_GATEWAY,
    OTHER_RECIPIENT,
    RECIPIENT,
    RECOVERY,
    TENANT,
    Case,
    Draft,
)

END = {4: (1 << 32) - 1, 8: (1 << 64) - 1}
"""The largest integer of that many bytes."""
GUESTS = [Identity(bytes([n]) * 32) for n in range(0x20, 0x20 + 31)]


@cache
def faulty() -> tuple[Case, ...]:
    """Return every record with a fault, of both suites."""
    return _named(_faulty)


@cache
def sound() -> tuple[Case, ...]:
    """Return every record without one, of both suites."""
    return _named(_sound)


def _named(cases: Callable[[Suite], Iterator[Case]]) -> tuple[Case, ...]:
    return tuple(
        replace(case, name=f"{suite.number:02x}: {case.name}")
        for suite in SUITES.values()
        for case in cases(suite)
    )


def _faulty(suite: Suite) -> Iterator[Case]:
    for name, draft in form_faults(suite).items():
        yield Case(name=name, draft=draft, layer=Layer.FORM)
    yield from public_faults(suite)
    yield from stanza_faults(suite)
    yield from secret_faults(suite)


def _sound(suite: Suite) -> Iterator[Case]:
    base = Draft(suite=suite)
    for name, changed in _ordinary(base).items():
        yield Case(name=name, draft=changed, context=changed.context)
    yield from _combinations(base)
    yield from _guests(base)
    trust = Trust(GATEWAY.verifier, TENANT)
    for name, last in (("its last", base.sequence), ("far off", END[8])):
        trusted = TrustedSigners(
            {GATEWAY.verifier.id: trust._replace(last_sequence=last)}
        )
        yield Case(name=f"a sequence that is {name}", draft=base, trusted=trusted)
    both = {
        GATEWAY.verifier.id: trust,
        OTHER_GATEWAY.verifier.id: Trust(OTHER_GATEWAY.verifier, b"some other place"),
    }
    yield Case(name="two gateways trusted", draft=base, trusted=TrustedSigners(both))
    yield Case(
        name="the other of two gateways",
        draft=replace(
            base,
            signer=OTHER_GATEWAY,
            signer_id=OTHER_GATEWAY.verifier.id,
            tenant=b"some other place",
        ),
        trusted=TrustedSigners(both),
    )
    yield Case(name="a suite at the floor", draft=base, least_suite=suite.number)
    several: dict[str, tuple[Opener, ...]] = {
        "strangers before": (OTHER_EPOCH, OTHER_RECIPIENT, RECIPIENT),
        "strangers behind": (RECOVERY, OTHER_RECIPIENT, OTHER_EPOCH),
        "every key at hand": (EPOCH, RECOVERY, RECIPIENT),
    }
    for name, openers in several.items():
        yield Case(name=name, draft=base, by=(openers,))


def _ordinary(base: Draft) -> dict[str, Draft]:
    return {
        "all three kinds of stanza": base,
        "an empty payload": replace(base, payload=b""),
        "a payload of a byte": replace(base, payload=b"p"),
        "a payload a byte short of a chunk": replace(base, payload=LARGE[: CHUNK - 1]),
        "a payload of a chunk": replace(base, payload=LARGE[:CHUNK]),
        "a payload of a chunk and a byte": replace(base, payload=LARGE[: CHUNK + 1]),
        "a payload of two chunks": replace(base, payload=LARGE[: 2 * CHUNK]),
        "a payload of three chunks": replace(base, payload=LARGE),
        "an empty context": replace(base, context=b""),
        "a context of a byte": replace(base, context=b"\0"),
        "the longest context": replace(base, context=bytes(range(256)) * 16),
        "a context that reads like fields": replace(
            base, context=base.record.header[:4096]
        ),
        "a method of a letter": replace(base, method=b"m"),
        "the longest method": replace(base, method=b"m" * 64),
        "a method of every character": replace(base, method=bytes(range(0x20, 0x60))),
        "a method of every other one": replace(base, method=bytes(range(0x60, 0x7F))),
        "the first sequence": replace(base, sequence=0),
        "the last sequence": replace(base, sequence=END[8]),
        "the first second": replace(base, created=0),
        "the last second": replace(base, created=END[8]),
        "the first policy": replace(base, policy=0),
        "the last policy": replace(base, policy=END[4]),
        "a record id of zeros": replace(base, record_id=bytes(16)),
        "an object key of zeros": replace(base, object_key=bytes(32)),
    }


def _combinations(base: Draft) -> Iterator[Case]:
    for name, places in (
        ("an epoch's stanza", (0,)),
        ("a recovery stanza", (1,)),
        ("a recipient's stanza", (2,)),
        ("stanzas of epoch and recovery", (0, 1)),
        ("stanzas of epoch and recipient", (0, 2)),
        ("stanzas of recovery and recipient", (1, 2)),
    ):
        draft = replace(base, to=[ALL[place] for place in places])
        yield Case(name=name, draft=draft, by=tuple(EACH[place] for place in places))
    for version in (1, END[4]):
        epoch = replace(EPOCH, version=version)
        draft = replace(base, to=[epoch, *ALL[1:]])
        yield Case(name=f"epoch {version}", draft=draft, by=((epoch,), *EACH[1:]))


def _guests(base: Draft) -> Iterator[Case]:
    """Yield records for many recipients."""
    public = [guest.recipient for guest in GUESTS]
    each: tuple[tuple[Opener, ...], ...] = tuple((guest,) for guest in GUESTS)
    kinds: list[Wrapper] = [*ALL[:2], *public[:30]]
    longest = bytes(4096)
    cases: dict[str, tuple[Draft, tuple[tuple[Opener, ...], ...]]] = {
        "two recipients": (replace(base, to=public[:2]), each[:2]),
        "32 recipients": (
            replace(base, to=[*public, ALL[2]]),
            (*each, EACH[2]),
        ),
        "32 stanzas, one an epoch's": (replace(base, to=[ALL[0], *public]), each),
        "32 stanzas of all kinds": (
            replace(base, to=kinds),
            (*EACH[:2], *each[:30]),
        ),
        "the largest header": (
            replace(base, to=[*public, ALL[2]], context=longest, method=b"m" * 64),
            (EACH[2],),
        ),
    }
    for name, (draft, by) in cases.items():
        yield Case(name=name, draft=draft, context=draft.context, by=by)
