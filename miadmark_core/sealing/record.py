"""The sealed record, version 1: a header that anyone may read, a payload that few can.

Header, integers big-endian::

    "MIADMARK" (8) | version = 1 (1) | suite (1) | fields
    field = tag (1) | length (4) | body

    01  record id          16
    02  tenant             16  whose gateway
    03  signer id          16  which key of it
    04  created             8  seconds since 1970, UTC
    05  sequence            8  the how many-eth record of the gateway
    06  policy              4  which of the site's policies was in force
    07  method        1 to 64  how the payload undoes the mark, in ASCII
    08  context     0 to 4096  what the record belongs to; compared byte by byte
    09  payload digest     32  SHA-256 of the sealed payload
    0a  commitment         32  to the object key
    0b  stanza                 type (1) | key id (16) | version (4) | body; 1 to 32 times
    0c  authentication     32  HMAC-SHA-256 over everything before this field
    0d  signature              over everything before this field

    suite  stanza body            signature
    01     01 epoch         48    Ed25519 64
           02 recovery      80
           03 recipient     80
    02     01 epoch         48    Ed25519 64 | ML-DSA-65 3309
           02 recovery    1168
           03 recipient   1168

Fields stand in this order, each once but the stanza; no other tag, nothing behind.
Stanzas stand by type; there is at most one of the types 01 and 02, and no two are for the
same key. The whole is at most 64 KiB.

Every record has an object key of its own, 32 random bytes. What it is derived with binds
everything up to the context, so that a record cannot be moved::

    binding = SHA-256(everything before field 09)
    K = HKDF-SHA-512(object key, salt = record id, info = label "seal" | binding)
    encryption key (32) | authentication key (32) | commitment (32)
    stanza info = label "stanza" | binding
    label P = "miadmark/v1/" P | 00 | suite

The payload is cut into chunks of 64 KiB, each sealed with AES-256-GCM under the nonce
``chunk number (11 bytes) | 01 for the last, else 00``, so that neither cutting, nor
joining, nor reordering goes unseen. The nonce may be fixed since the key is used once.

Nothing here opens or believes anything: :mod:`miadmark_core.sealing.seal` does.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from miadmark_core.errors import DamagedSealError, Layer, UnknownFormatError
from miadmark_core.sealing.signing import SIGNER_ID_SIZE, TENANT_SIZE
from miadmark_core.sealing.stanza import KEY_ID_SIZE, Stanza, StanzaType, body_size
from miadmark_core.sealing.suites import suite_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from miadmark_core.sealing.suites import Suite

MAGIC: Final = b"MIADMARK"
VERSION: Final = 1
MAX_STANZAS: Final = 32
MAX_HEADER: Final = 64 * 1024
MAX_CONTEXT: Final = 4096
MAX_METHOD: Final = 64

RECORD_ID_SIZE: Final = 16
DIGEST_SIZE: Final = 32
_FIELD: Final = struct.Struct(">BI")
_STANZA: Final = struct.Struct(f">B{KEY_ID_SIZE}sI")
_START: Final = len(MAGIC) + 2


class SealedRecord(NamedTuple):
    """What travels with a marked object, and what the ledger keeps."""

    header: bytes
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a record says in clear of itself, and is bound to."""

    suite: Suite
    record_id: bytes
    tenant: bytes
    signer_id: bytes
    created: int
    """Seconds since 1970, UTC."""
    sequence: int
    policy: int
    method: str
    context: bytes

    @cached_property
    def encoded(self) -> bytes:
        """Return the beginning of the header, up to the context."""
        return b"".join(
            (
                MAGIC,
                bytes([VERSION, self.suite.number]),
                field(0x01, self.record_id),
                field(0x02, self.tenant),
                field(0x03, self.signer_id),
                field(0x04, struct.pack(">Q", self.created)),
                field(0x05, struct.pack(">Q", self.sequence)),
                field(0x06, struct.pack(">I", self.policy)),
                field(0x07, self.method.encode("ascii")),
                field(0x08, self.context),
            )
        )

    @cached_property
    def binding(self) -> bytes:
        """Return the digest that every derivation takes in."""
        return hashlib.sha256(self.encoded).digest()

    @property
    def stanza_info(self) -> bytes:
        """Return what stanzas are bound to."""
        return self.suite.label("stanza") + self.binding


@dataclass(frozen=True, kw_only=True)
class Header(Bound):
    """What a header says in clear. Read, not yet believed."""

    payload_digest: bytes
    commitment: bytes
    stanzas: tuple[Stanza, ...]
    authentication: bytes
    signature: bytes
    authenticated: bytes
    """What :attr:`authentication` covers."""
    signed: bytes
    """What :attr:`signature` covers."""


def field(tag: int, body: bytes) -> bytes:
    """Return one field of a header."""
    return _FIELD.pack(tag, len(body)) + body


def stanza_field(stanza: Stanza) -> bytes:
    """Return the field of one stanza."""
    head = _STANZA.pack(stanza.type, stanza.key_id, stanza.version)
    return field(0x0B, head + stanza.body)


def parse(header: bytes) -> Header:
    """Return what ``header`` says; nothing of it is checked but its form.

    Raises:
        UnknownFormatError: The version or suite is not known here.
        DamagedSealError: It is not a header, or not exactly one.
    """
    if not _START <= len(header) <= MAX_HEADER or not header.startswith(MAGIC):
        raise DamagedSealError("this is not the header of a sealed record")
    if header[8] != VERSION:
        raise UnknownFormatError(
            f"a sealed record of version {header[8]:02x}, which is not known here",
            hint="A newer version of this software sealed it: upgrade.",
            layer=Layer.SUITE,
        )
    suite = suite_of(header[9])
    fields = _Fields(header)
    bound = Bound(
        suite=suite,
        record_id=fields.take(0x01, RECORD_ID_SIZE),
        tenant=fields.take(0x02, TENANT_SIZE),
        signer_id=fields.take(0x03, SIGNER_ID_SIZE),
        created=int.from_bytes(fields.take(0x04, 8)),
        sequence=int.from_bytes(fields.take(0x05, 8)),
        policy=int.from_bytes(fields.take(0x06, 4)),
        method=_method(fields.take(0x07, range(1, MAX_METHOD + 1))),
        context=fields.take(0x08, range(MAX_CONTEXT + 1)),
    )
    payload_digest = fields.take(0x09, DIGEST_SIZE)
    commitment = fields.take(0x0A, DIGEST_SIZE)
    stanzas = [_stanza(fields.take(0x0B), suite)]
    while fields.next_tag() == 0x0B:
        stanzas.append(_stanza(fields.take(0x0B), suite))
    _require_order(stanzas)
    authenticated = header[: fields.position]
    authentication = fields.take(0x0C, DIGEST_SIZE)
    signed = header[: fields.position]
    signature = fields.take(0x0D, suite.signature_size)
    if fields.next_tag() is not None:
        raise DamagedSealError("something stands behind the record's signature")
    return Header(
        **{name: getattr(bound, name) for name in Bound.__dataclass_fields__},
        payload_digest=payload_digest,
        commitment=commitment,
        stanzas=tuple(stanzas),
        authentication=authentication,
        signature=signature,
        authenticated=authenticated,
        signed=signed,
    )


class _Fields:
    """Takes the fields of a header one after another."""

    def __init__(self, header: bytes) -> None:
        self._header, self.position = header, _START

    def next_tag(self) -> int | None:
        """Return the tag that comes next; None at the end."""
        if self.position == len(self._header):
            return None
        return self._header[self.position]

    def take(self, tag: int, sizes: int | range | None = None) -> bytes:
        """Return the body of the next field, which has to be ``tag``.

        Raises:
            DamagedSealError: It is another, or not of one of ``sizes``.
        """
        if self.next_tag() != tag:
            raise DamagedSealError(f"the record's header lacks field {tag:02x}")
        start = self.position + _FIELD.size
        if start > len(self._header):
            raise DamagedSealError("the record's header is cut short")
        _, length = _FIELD.unpack_from(self._header, self.position)
        if start + length > len(self._header):
            raise DamagedSealError("the record's header is cut short")
        allowed = range(sizes, sizes + 1) if isinstance(sizes, int) else sizes
        if allowed is not None and length not in allowed:
            raise DamagedSealError(f"field {tag:02x} of the header has a wrong length")
        self.position = start + length
        return self._header[start : self.position]


def _method(body: bytes) -> str:
    if not all(0x20 <= byte < 0x7F for byte in body):
        raise DamagedSealError("the method of the record is no ASCII text")
    return body.decode("ascii")


def _stanza(body: bytes, suite: Suite) -> Stanza:
    if len(body) < _STANZA.size:
        raise DamagedSealError("a stanza is cut short")
    number, key_id, version = _STANZA.unpack_from(body)
    sealed = body[_STANZA.size :]
    try:
        kind = StanzaType(number)
    except ValueError:
        raise DamagedSealError(f"a stanza of type {number:02x}") from None
    if len(sealed) != body_size(kind, suite):
        raise DamagedSealError(
            f"a stanza for {kind.name.lower()} that suite {suite.number:02x} lacks"
        )
    return Stanza(kind, key_id, version, sealed)


def _require_order(stanzas: Sequence[Stanza]) -> None:
    if len(stanzas) > MAX_STANZAS:
        raise DamagedSealError(f"{len(stanzas)} stanzas; {MAX_STANZAS} are possible")
    kinds = [stanza.type for stanza in stanzas]
    if kinds != sorted(kinds):
        raise DamagedSealError("the stanzas of the record are out of order")
    if len({stanza.key_id for stanza in stanzas}) != len(stanzas) or any(
        kinds.count(single) > 1 for single in (StanzaType.EPOCH, StanzaType.RECOVERY)
    ):
        raise DamagedSealError("the record has a stanza twice")
    if any((s.version > 0) != (s.type is StanzaType.EPOCH) for s in stanzas):
        raise DamagedSealError("an epoch has a number from 1 on, and nothing else has")


def spans(header: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield tag, start and end of each field of a header that :func:`parse` took."""
    position = _START
    while position < len(header):
        tag, length = _FIELD.unpack_from(header, position)
        start = position + _FIELD.size
        yield tag, start, start + length
        position = start + length
