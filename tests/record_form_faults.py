"""Headers of a wrong form, one fault each; all else in them is right, and signed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from miadmark_core.sealing.recipients import Recipient
from miadmark_core.sealing.stanza import Stanza, StanzaType
from miadmark_core.sealing.suites import CLASSICAL, HYBRID, Suite
from tests.record_writer import (
    ALL,
    EPOCH,
    GATEWAY,
    OTHER_EPOCH,
    OTHER_RECIPIENT,
    OTHER_RECOVERY,
    RECIPIENT,
    RECOVERY,
    Draft,
    Fields,
    Turn,
    always,
    at,
    body,
    field,
    flipped,
    put,
    without,
)

Drafts = dict[str, Draft]

NAMES = (
    "record id",
    "tenant",
    "signer id",
    "time",
    "sequence",
    "policy",
    "method",
    "context",
    "payload digest",
    "commitment",
    "stanza",
    "authentication",
    "signature",
)
"""Of the fields, by place; as they stand in a header of one stanza."""


def form_faults(suite: Suite) -> Drafts:
    """Return drafts of which nothing but the form can be refused."""
    return (
        dict(_each_field(suite))
        | dict(_frames(suite))
        | dict(_methods(suite))
        | dict(_stanzas(suite))
        | dict(_bodies(suite))
    )


def _bent(draft: Draft, place: int, turn: Turn[Fields]) -> Draft:
    """Return a draft in which ``turn`` is made as soon as field ``place`` is there."""
    stage = ["bound"] * 8 + ["fields"] * 3 + ["vouched", "all"]
    turns: dict[str, Any] = {stage[place]: turn}
    return replace(draft, **turns)


def _resized(place: int, by: int) -> Turn[Fields]:
    def turned(fields: Fields) -> Fields:
        old = body(fields[place])
        new = old[:by] if by < 0 else old + bytes(by)
        return put(fields, place, field(place + 1, new))

    return turned


def _says(place: int, length: int | None) -> Turn[Fields]:
    """Return what makes a field lie of its length: by one byte, where none is given."""

    def turned(fields: Fields) -> Fields:
        old = fields[place]
        said = len(old) - 5 + 1 if length is None else length
        return put(fields, place, old[:1] + said.to_bytes(4) + old[5:])

    return turned


def _cut(place: int) -> Turn[Fields]:
    return lambda fields: [*fields[:place], fields[place][:-1]]


def _tagged(place: int, tag: int) -> Turn[Fields]:
    return lambda fields: put(fields, place, bytes([tag]) + fields[place][1:])


def _each_field(suite: Suite) -> Iterator[tuple[str, Draft]]:
    one = Draft(suite=suite, to=[EPOCH])
    shorter = {6: -len(one.method)}
    longer = {6: 65 - len(one.method), 7: 4097 - len(one.context)}

    def bent(place: int, turn: Turn[Fields]) -> Draft:
        return _bent(one, place, turn)

    def doubled(place: int) -> Turn[Fields]:
        return lambda fields: put(fields, place, fields[place], fields[place])

    def exchanged(place: int) -> Turn[Fields]:
        return lambda f: [*f[:place], f[place + 1], f[place], *f[place + 2 :]]

    for place, name in enumerate(NAMES):
        yield f"no {name}", bent(place, without(place))
        yield f"the {name} twice", bent(place, doubled(place))
        if place < len(NAMES) - 1:
            yield (
                f"the {name} after its successor",
                bent(place + 1, exchanged(place)),
            )
        if name != "context":  # which may be of any length, and empty
            yield (
                f"the {name} too short",
                bent(place, _resized(place, shorter.get(place, -1))),
            )
        yield f"the {name} too long", bent(place, _resized(place, longer.get(place, 1)))
        yield f"the {name} that says it is longer", bent(place, _says(place, None))
        yield (
            f"the {name} that says it is 4 GiB",
            bent(place, _says(place, (1 << 32) - 1)),
        )
        yield f"a header cut within its {name}", bent(12, _cut(place))
        yield f"the {name} of tag 0e", bent(place, _tagged(place, 0x0E))
        yield f"the {name} of tag 00", bent(place, _tagged(place, 0x00))


def _frames(suite: Suite) -> Iterator[tuple[str, Draft]]:
    one = Draft(suite=suite, to=[EPOCH])

    def cut(start: bytes) -> Draft:
        """Return a draft of whose header only ``start`` is left."""
        return replace(one, start=lambda _: start, all=lambda _: [])

    size = len(one.record.header)
    yield "no header at all", cut(b"")
    yield "a header of nothing but the magic", cut(b"MIADMARK")
    yield "a header that ends before its suite", cut(b"MIADMARK\1")
    yield "a header that ends after its suite", cut(one.written_start)
    yield "a wrong magic", replace(one, start=flipped(0))
    yield "a magic in lower case", replace(one, start=bytes.swapcase)
    yield "a byte before the magic", replace(one, start=lambda start: b"\0" + start)
    yield "a byte behind the signature", replace(one, all=lambda f: [*f, b"\0"])
    yield (
        "an unknown field behind the signature",
        replace(one, all=lambda f: [*f, field(0x0E, b"")]),
    )
    yield "a field's head cut short", replace(one, all=lambda f: [*f[:-1], f[-1][:4]])
    yield "an unknown field at the start", _bent(one, 0, lambda f: [field(0, b""), *f])
    yield (
        "an unknown field before the authentication",
        _bent(one, 10, lambda f: [*f, field(0x0E, b"")]),
    )
    yield (
        "an unknown field before the signature",
        _bent(one, 11, lambda f: [*f, field(0x0E, b"")]),
    )
    yield (
        "a header one byte above the largest",
        _bent(one, 7, _resized(7, (1 << 16) + 1 - size)),
    )
    yield "the other suite's number", Draft(suite=suite, start=_switched)
    yield (
        "the other suite's number, an epoch's stanza only",
        replace(one, start=_switched),
    )
    yield "a header of a megabyte", _bent(one, 7, _resized(7, 1 << 20))


def _switched(start: bytes) -> bytes:
    return start[:9] + bytes([3 - start[9]])


def _methods(suite: Suite) -> Iterator[tuple[str, Draft]]:
    for name, method in (
        ("no ASCII", "märk/1".encode()),
        ("a Latin letter", b"m\xe4rk/1"),
        ("a zero byte", b"mark\x001"),
        ("a line feed", b"mark/1\n"),
        ("an escape", b"\x1b[1m"),
        ("a unit separator", b"mark\x1f1"),
        ("a delete", b"mark/1\x7f"),
    ):
        yield f"a method with {name}", Draft(suite=suite, method=method)


def _stanzas(suite: Suite) -> Iterator[tuple[str, Draft]]:
    every = Draft(suite=suite)
    many = [RECIPIENT.recipient] * 33

    def to(*wrappers: Any) -> Draft:
        return replace(every, to=wrappers)

    epoch, recovery, recipient = EPOCH, RECOVERY.recipient, RECIPIENT.recipient
    yield "a recovery stanza before the epoch's", to(recovery, epoch)
    yield "a recipient's stanza before the epoch's", to(recipient, epoch)
    yield "a recipient's stanza before the recovery's", to(epoch, recipient, recovery)
    yield "three stanzas the other way round", to(*reversed(ALL))
    yield "stanzas of two epochs", to(epoch, OTHER_EPOCH)
    yield "stanzas of two recovery keys", to(recovery, OTHER_RECOVERY.recipient)
    yield "two stanzas for one epoch", to(epoch, epoch)
    yield "two stanzas for one recovery key", to(recovery, recovery)
    yield "two stanzas for one recipient", to(epoch, recovery, recipient, recipient)
    yield (
        "two stanzas for one recipient, another between",
        to(recipient, OTHER_RECIPIENT.recipient, recipient),
    )
    yield "stanzas of two types for one key", to(_as_recovery(recipient), recipient)
    yield "33 stanzas", replace(every, to=many, stanzas=_numbered)
    yield (
        "33 stanzas, the first of an epoch",
        replace(every, to=[epoch, *many[:32]], stanzas=_numbered),
    )
    for name, place in (("a recovery", 1), ("a recipient's", 2)):
        for version in (1, (1 << 32) - 1):
            yield (
                f"{name} stanza of version {version}",
                replace(every, stanzas=at(place, _of_version(version))),
            )
    for number in (0, 4, 0x0B, 255):
        yield (
            f"a stanza of type {number}",
            replace(every, fields=at(12, _typed(number))),
        )


def _as_recovery(recipient: Recipient) -> Recipient:
    return Recipient(recipient.encoded, StanzaType.RECOVERY)


def _of_version(version: int) -> Turn[Stanza]:
    return lambda stanza: stanza._replace(version=version)


def _typed(number: int) -> Turn[bytes]:
    return lambda encoded: encoded[:5] + bytes([number]) + encoded[6:]


def _numbered(stanzas: list[Stanza]) -> list[Stanza]:
    """Return them with key ids that all differ."""
    return [s._replace(key_id=bytes([n]) + s.key_id[1:]) for n, s in enumerate(stanzas)]


def _bodies(suite: Suite) -> Iterator[tuple[str, Draft]]:
    every = Draft(suite=suite)
    other = CLASSICAL if suite is HYBRID else HYBRID

    def sized(place: int, size: int) -> Draft:
        def turned(encoded: bytes) -> bytes:
            return field(0x0B, (body(encoded) + bytes(size))[:size])

        return replace(every, fields=at(10 + place, turned))

    head = 1 + 16 + 4
    for place, name in enumerate(("an epoch's", "a recovery", "a recipient's")):
        own = len(body(every.parts[10 + place]))
        yield f"{name} stanza that is empty", sized(place, 0)
        yield f"{name} stanza cut within its head", sized(place, head - 1)
        yield f"{name} stanza without a body", sized(place, head)
        yield f"{name} stanza a byte short", sized(place, own - 1)
        yield f"{name} stanza a byte long", sized(place, own + 1)
    for place, name in ((1, "a recovery"), (2, "a recipient's")):
        yield f"{name} stanza as long as an epoch's", sized(place, head + 48)
        foreign = ALL[place].wrap(other, every.object_key, every.stanza_info)
        yield (
            f"{name} stanza of the other suite",
            replace(every, stanzas=at(place, always(foreign))),
        )
    yield (
        "an epoch's stanza as long as a recipient's",
        sized(0, head + suite.wrapped_size),
    )
    yield (
        "a signature of the other suite",
        replace(every, signature=lambda _, m: GATEWAY.sign(other, "record", m)),
    )
