"""Writes sealed records, sound ones or with one step bent and every later step redone.

It follows what :mod:`miadmark_core.sealing.record` says of the format and writes with
none of its code, so a mistake made there is not made here again. Only keys, stanzas and
signatures come from the package; what they are bound to is worked out here.

A draft is a record before it is written. Each of its turns changes what one step made,
and all steps after it go on from there: a bent commitment is authenticated and signed,
so nothing but the comparison of the commitment can refuse it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from miadmark_core.errors import Layer
from miadmark_core.sealing.epoch_key import EpochKey
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.record import SealedRecord
from miadmark_core.sealing.seal import unseal
from miadmark_core.sealing.signing import Signer, Trust, TrustedSigners
from miadmark_core.sealing.stanza import Opener, Stanza, StanzaType, Wrapper
from miadmark_core.sealing.suites import Suite

T = TypeVar("T")
Turn = Callable[[T], T]
Fields = list[bytes]
"""Of a header, each with its tag and length."""

EPOCH: Final = EpochKey(7, b"\x07" * 32)
RECOVERY: Final = Identity(b"\x08" * 32, StanzaType.RECOVERY)
RECIPIENT: Final = Identity(b"\x09" * 32)
ALL: Final = (EPOCH, RECOVERY.recipient, RECIPIENT.recipient)
GATEWAY: Final = Signer(b"\x0a" * 64)
TENANT: Final = b"one site of many"
TRUSTED: Final = TrustedSigners({GATEWAY.verifier.id: Trust(GATEWAY.verifier, TENANT)})
CONTEXT: Final = b"an object, 16 rows by 16 columns"
PAYLOAD: Final = b"how the mark is undone"

OTHER_EPOCH: Final = EpochKey(8, b"\x17" * 32)
OTHER_RECOVERY: Final = Identity(b"\x18" * 32, StanzaType.RECOVERY)
OTHER_RECIPIENT: Final = Identity(b"\x19" * 32)
OTHER_GATEWAY: Final = Signer(b"\x1a" * 64)

CHUNK: Final = 1 << 16
EACH: Final = ((EPOCH,), (RECOVERY,), (RECIPIENT,))
"""Every holder, alone."""


class Keys(NamedTuple):
    encryption: bytes
    authentication: bytes
    commitment: bytes


def same(value: T) -> T:
    return value


def field(tag: int, body: bytes) -> bytes:
    return bytes([tag]) + len(body).to_bytes(4) + body


def body(encoded: bytes) -> bytes:
    """Return what a field holds."""
    return encoded[5:]


def label(number: int, purpose: str) -> bytes:
    return b"miadmark/v1/" + purpose.encode() + bytes([0, number])


def hkdf(key: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """Return ``size`` bytes of HKDF-SHA-512 (RFC 5869)."""
    secret, block, made = hmac.digest(salt, key, "sha512"), b"", b""
    for number in range(1, 1 + -(-size // 64)):
        block = hmac.digest(secret, block + info + bytes([number]), "sha512")
        made += block
    return made[:size]


def put(values: Sequence[T], place: int, *new: T) -> list[T]:
    """Return ``values`` with ``new`` instead of the one at ``place``."""
    return [*values[:place], *new, *values[place + 1 :]]


def always(value: T) -> Turn[T]:
    """Return what puts ``value`` there, whatever was."""
    return lambda _: value


def at(place: int, turn: Turn[T]) -> Turn[list[T]]:
    """Return what turns the one at ``place``."""
    return lambda values: put(values, place, turn(values[place]))


def without(place: int) -> Turn[list[T]]:
    """Return what takes out the one at ``place``."""
    return lambda values: put(values, place)


def nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11) + bytes([is_last])


def chunks(payload: bytes, key: bytes, size: int = CHUNK) -> list[bytes]:
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    last = len(pieces) - 1
    return [
        AESGCM(key).encrypt(nonce(n, is_last=n == last), piece, None)
        for n, piece in enumerate(pieces)
    ]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A record to be written: what goes into it, then what is bent."""

    suite: Suite
    to: Sequence[Wrapper] = ALL
    payload: bytes = PAYLOAD
    object_key: bytes = bytes(range(0x40, 0x60))
    signer: Signer = GATEWAY
    record_id: bytes = bytes(range(0x30, 0x40))
    tenant: bytes = TENANT
    signer_id: bytes = GATEWAY.verifier.id
    created: int = 1_800_000_000
    sequence: int = 10
    policy: int = 3
    method: bytes = b"mark/1"
    context: bytes = CONTEXT

    start: Turn[bytes] = same
    """Magic, version, suite."""
    bound: Turn[Fields] = same
    """Fields 01 to 08, from which everything is derived."""
    keys: Turn[Keys] = same
    cut: Turn[list[bytes]] = same
    """The sealed chunks."""
    digest: Turn[bytes] = same
    commitment: Turn[bytes] = same
    stanzas: Turn[list[Stanza]] = same
    fields: Turn[Fields] = same
    """Everything before field 0c."""
    authentication: Turn[bytes] = same
    vouched: Turn[Fields] = same
    """Everything before field 0d."""
    signature: Callable[[bytes, bytes], bytes] = lambda signature, _: signature
    """Takes the signature, and what it covers."""
    all: Turn[Fields] = same
    """The whole header, of which nothing is redone."""
    payload_carried: Turn[bytes] = same
    """The sealed payload, of which nothing is redone."""

    @cached_property
    def written_start(self) -> bytes:
        return self.start(b"MIADMARK" + bytes([1, self.suite.number]))

    @cached_property
    def written_bound(self) -> Fields:
        return self.bound(
            [
                field(0x01, self.record_id),
                field(0x02, self.tenant),
                field(0x03, self.signer_id),
                field(0x04, self.created.to_bytes(8)),
                field(0x05, self.sequence.to_bytes(8)),
                field(0x06, self.policy.to_bytes(4)),
                field(0x07, self.method),
                field(0x08, self.context),
            ]
        )

    @cached_property
    def binding(self) -> bytes:
        bound = self.written_start + b"".join(self.written_bound)
        return hashlib.sha256(bound).digest()

    @cached_property
    def stanza_info(self) -> bytes:
        return label(self.suite.number, "stanza") + self.binding

    @cached_property
    def true_keys(self) -> Keys:
        """Return what the object key stands for, bent by nothing."""
        info = label(self.suite.number, "seal") + self.binding
        made = hkdf(self.object_key, self.record_id, info, 96)
        return Keys(made[:32], made[32:64], made[64:])

    def wrapped(self, *others: Wrapper, key: bytes | None = None) -> list[Stanza]:
        """Return stanzas for ``others``, as this record would have them."""
        key = self.object_key if key is None else key
        return [other.wrap(self.suite, key, self.stanza_info) for other in others]

    @cached_property
    def record(self) -> SealedRecord:
        keys = self.keys(self.true_keys)
        sealed = b"".join(self.cut(chunks(self.payload, keys.encryption)))
        fields = self.fields(
            [
                *self.written_bound,
                field(0x09, self.digest(hashlib.sha256(sealed).digest())),
                field(0x0A, self.commitment(keys.commitment)),
                *map(stanza_field, self.stanzas(self.wrapped(*self.to))),
            ]
        )
        covered = self.written_start + b"".join(fields)
        mac = self.authentication(hmac.digest(keys.authentication, covered, "sha256"))
        fields = self.vouched([*fields, field(0x0C, mac)])
        covered = self.written_start + b"".join(fields)
        signature = self.signer.sign(self.suite, "record", covered)
        signature = self.signature(signature, covered)
        fields = self.all([*fields, field(0x0D, signature)])
        header = self.written_start + b"".join(fields)
        return SealedRecord(header, self.payload_carried(sealed))

    @cached_property
    def parts(self) -> Fields:
        """Return the fields of the written header."""
        return list(parted(self.record.header[len(self.written_start) :]))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A record, who tries to open it, and what must come of it."""

    name: str
    draft: Draft
    layer: Layer | None = None
    """Which check refuses it; none, where it opens."""
    context: bytes = CONTEXT
    by: tuple[tuple[Opener, ...], ...] = EACH
    """Who tries, one after another; each with one key or several."""
    trusted: TrustedSigners = TRUSTED
    least_suite: int = 1

    def unseal(self, openers: tuple[Opener, ...]) -> bytes:
        return unseal(
            self.draft.record,
            self.context,
            openers=openers,
            trusted=self.trusted,
            least_suite=self.least_suite,
        )


def parted(header: bytes) -> Iterator[bytes]:
    while header:
        end = 5 + int.from_bytes(header[1:5])
        yield header[:end]
        header = header[end:]


def stanza_field(stanza: Stanza) -> bytes:
    head = bytes([stanza.type]) + stanza.key_id + stanza.version.to_bytes(4)
    return field(0x0B, head + stanza.body)


def flipped(position: int, bit: int = 0) -> Turn[bytes]:
    """Return what turns one bit of some bytes; ``position`` may count from the end."""

    def turned(value: bytes) -> bytes:
        changed = bytearray(value)
        changed[position] ^= 1 << bit
        return bytes(changed)

    return turned
