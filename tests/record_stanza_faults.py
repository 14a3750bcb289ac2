"""Stanzas that do not open for their holder, and holders for whom there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from miadmark_core.errors import Layer
from miadmark_core.sealing.epoch_key import EpochKey
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.stanza import Opener, Stanza, StanzaType
from miadmark_core.sealing.suites import CLASSICAL, HYBRID, Suite
from tests.record_writer import (
    ALL,
    EACH,
    EPOCH,
    OTHER_EPOCH,
    OTHER_RECIPIENT,
    OTHER_RECOVERY,
    RECIPIENT,
    RECOVERY,
    Case,
    Draft,
    Turn,
    always,
    at,
    flipped,
    label,
    nonce,
)

KINDS = ("an epoch's", "a recovery", "a recipient's")


def stanza_faults(suite: Suite) -> Iterator[Case]:
    """Yield cases in which a trusted gateway wrote a wrong stanza, or none for us."""
    for place, kind in enumerate(KINDS):
        for name, turn in _wrong(suite, place).items():
            yield Case(
                name=f"{kind} stanza {name}",
                draft=Draft(suite=suite, stanzas=at(place, _bodied(turn))),
                layer=Layer.STANZA,
                by=(EACH[place],),
            )
        (other,) = Draft(suite=suite).wrapped(ALL[place], key=b"\x0c" * 32)
        yield Case(
            name=f"{kind} stanza of another object key",
            draft=Draft(suite=suite, stanzas=at(place, always(other))),
            layer=Layer.COMMITMENT,
            by=(EACH[place],),
        )
    yield from _strangers(suite)


def _wrong(suite: Suite, place: int) -> dict[str, Turn[bytes]]:
    """Return what can be wrong with the body at ``place``, as its holder sees it."""
    base, holder = Draft(suite=suite), ALL[place]
    other = CLASSICAL if suite is HYBRID else HYBRID
    strangers = (OTHER_EPOCH, OTHER_RECOVERY.recipient, OTHER_RECIPIENT.recipient)
    moved = Draft(suite=suite, record_id=b"\x02" * 16).wrapped(holder)[0].body
    key, number, binding = base.object_key, suite.number, base.binding

    def bound_to(info: bytes) -> Turn[bytes]:
        return always(holder.wrap(suite, key, info).body)

    turns = {
        "of another record": always(moved),
        "sealed to someone else": always(base.wrapped(strangers[place])[0].body),
        "bound to nothing": bound_to(b""),
        "bound without a label": bound_to(binding),
        "bound for another purpose": bound_to(label(number, "seal") + binding),
        "bound in the other suite": bound_to(label(other.number, "stanza") + binding),
        "bound to a label alone": bound_to(label(number, "stanza")),
        "of zeros": _zeros,
        "with its object key flipped": flipped(-17, 7),
        "with its tag flipped": flipped(-1, 7),
    }
    return turns | (_wrong_epoch(base) if place == 0 else _wrong_hpke(suite, moved))


def _zeros(value: bytes) -> bytes:
    return bytes(len(value))


def _wrong_epoch(base: Draft) -> dict[str, Turn[bytes]]:
    key, blank = base.object_key, bytes(12)
    other = CLASSICAL if base.suite is HYBRID else HYBRID
    right = EPOCH._cipher(base.suite, base.stanza_info)
    wrong = EPOCH._cipher(other, base.stanza_info)
    bodies = {
        "under the epoch's key itself": AESGCM(EPOCH.secret).encrypt(blank, key, None),
        "under another nonce": right.encrypt(nonce(0, is_last=True), key, None),
        "with associated data": right.encrypt(blank, key, b"more"),
        "under the other suite's key": wrong.encrypt(blank, key, None),
    }
    return {name: always(body) for name, body in bodies.items()}


def _wrong_hpke(suite: Suite, moved: bytes) -> dict[str, Turn[bytes]]:
    end = suite.encapsulated_size
    share = slice(end - 32, end)

    def with_part(part: slice, value: bytes) -> Turn[bytes]:
        return lambda body: body[: part.start] + value + body[part.stop :]

    turns = {
        "with its X25519 share flipped": flipped(end - 32),
        "with the unused bit of its X25519 share flipped": flipped(end - 1, 7),
        "with the X25519 point 0": with_part(share, bytes(32)),
        "with the X25519 point 1": with_part(share, b"\1" + bytes(31)),
        "with another's X25519 share": with_part(share, moved[share]),
        "with another's encapsulated key": with_part(slice(0, end), moved[:end]),
        "with another's ciphertext": with_part(slice(end, end + 48), moved[end:]),
    }
    if suite is HYBRID:
        mlkem = slice(0, 1088)
        turns |= {
            "with its ML-KEM ciphertext flipped": flipped(0),
            "with the end of its ML-KEM ciphertext flipped": flipped(1087, 7),
            "with an ML-KEM ciphertext of zeros": with_part(mlkem, bytes(1088)),
            "with another's ML-KEM ciphertext": with_part(mlkem, moved[mlkem]),
        }
    return turns


def _strangers(suite: Suite) -> Iterator[Case]:
    base = Draft(suite=suite)
    as_recovery = Identity(RECIPIENT.seed, StanzaType.RECOVERY)
    renamed = at(1, _of_type(StanzaType.RECOVERY))
    cases: dict[str, tuple[Draft, tuple[Opener, ...]]] = {
        "no opener": (base, ()),
        "another epoch": (base, (OTHER_EPOCH,)),
        "another recovery key": (base, (OTHER_RECOVERY,)),
        "another recipient": (base, (OTHER_RECIPIENT,)),
        "three strangers": (base, (OTHER_EPOCH, OTHER_RECOVERY, OTHER_RECIPIENT)),
        "an epoch of the same number": (base, (EpochKey(7, OTHER_EPOCH.secret),)),
        "an epoch's key under another number": (base, (EpochKey(8, EPOCH.secret),)),
        "a recipient with the recovery key": (base, (Identity(RECOVERY.seed),)),
        "a recovery holder with the recipient's key": (base, (as_recovery,)),
        "a recipient's stanza that calls itself a recovery stanza": (
            replace(base, to=[EPOCH, RECIPIENT.recipient], stanzas=renamed),
            (RECIPIENT,),
        ),
    }
    for place, kind in enumerate(KINDS):
        left_out = [holder for holder in ALL if holder is not ALL[place]]
        cases[f"{kind} stanza left out"] = (replace(base, to=left_out), EACH[place])
        for byte in (0, -1):
            cases[f"{kind} stanza with byte {byte} of its key id flipped"] = (
                replace(base, stanzas=at(place, _renamed(byte))),
                EACH[place],
            )
    for name, (draft, openers) in cases.items():
        yield Case(name=name, draft=draft, layer=Layer.STANZA, by=(openers,))


def _of_type(kind: StanzaType) -> Turn[Stanza]:
    return lambda stanza: stanza._replace(type=kind)


def _renamed(byte: int) -> Turn[Stanza]:
    return lambda stanza: stanza._replace(key_id=flipped(byte)(stanza.key_id))


def _bodied(turn: Turn[bytes]) -> Turn[Stanza]:
    return lambda stanza: stanza._replace(body=turn(stanza.body))
