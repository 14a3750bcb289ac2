"""The sealed record, version 1: a header that anyone may read, a payload that few can.

Header, integers big-endian::

    "MIADMARK" (8) | version = 1 (1) | suite (1) | fields
    field = tag (1) | length (4) | body

    01  record id          16
    02  signer id          16   which gateway's key
    03  created             8   seconds since 1970, UTC
    04  context           any   what the record belongs to; compared byte by byte
    05  payload digest     32   SHA-256 of the sealed payload
    06  commitment         32   to the object key
    07  stanza             97   type = 1 (1) | key id (16) | body (80); 1 to 64 of them
    08  authentication     32   HMAC-SHA-256 over everything before this field
    09  signature          64   Ed25519 over everything before this field

Fields stand in this order, each once but the stanza; no other tag, nothing behind.
Suite 01 is X25519 HPKE, HKDF-SHA-512, AES-256-GCM, Ed25519; 02 is kept for the hybrid
with ML-KEM-768 and ML-DSA-65.

Every record has an object key of its own, 32 random bytes. From it::

    K = HKDF-SHA-512(object key, salt = record id,
                     info = "miadmark/v1/seal" | suite | SHA-256(context))
    encryption key (32) | authentication key (32) | commitment (32)

The payload is cut into chunks of 64 KiB, each sealed with AES-256-GCM under the nonce
``chunk number (11 bytes) | 01 for the last, else 00``, so that neither cutting, nor
joining, nor reordering goes unseen. The nonce may be fixed since the key is used once.

AES-GCM does not commit to a key, so the commitment is compared before anything is
opened. The order of checks when opening is: sizes, version and suite; signature;
context; payload digest; stanza; commitment; authentication; payload.

Nothing here knows what is inside the payload, or where a record is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from miadmark_core.errors import DamagedSealError, NoStanzaError, UnknownFormatError
from miadmark_core.sealing.recipients import KEY_ID_SIZE, STANZA_SIZE
from miadmark_core.sealing.signing import SIGNATURE_SIZE, SIGNER_ID_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from miadmark_core.sealing.recipients import Identity, Recipient
    from miadmark_core.sealing.signing import Signer, TrustedSigners

MAGIC: Final = b"MIADMARK"
VERSION: Final = 1
SUITE_CLASSICAL: Final = 1
MAX_STANZAS: Final = 64
MAX_HEADER: Final = 64 * 1024

RECORD_ID_SIZE: Final = 16
_DIGEST_SIZE: Final = 32
_OBJECT_KEY_SIZE: Final = 32
_X25519_STANZA: Final = 1
_CHUNK: Final = 64 * 1024
_TAG_SIZE: Final = 16
_FIELD: Final = struct.Struct(">BI")


class SealedRecord(NamedTuple):
    """What travels with a marked object, and what the ledger keeps."""

    header: bytes
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a header says in clear. Read, not yet believed."""

    record_id: bytes
    signer_id: bytes
    created: int
    """Seconds since 1970, UTC."""
    context: bytes
    payload_digest: bytes
    commitment: bytes
    stanzas: tuple[tuple[bytes, bytes], ...]
    """Key id and body of each."""
    authentication: bytes
    signature: bytes
    authenticated: bytes
    """What ``authentication`` covers."""
    signed: bytes
    """What ``signature`` covers."""


def seal(
    payload: bytes,
    context: bytes,
    *,
    recipients: Sequence[Recipient],
    signer: Signer,
    now: datetime,
    random: Callable[[int], bytes],
) -> SealedRecord:
    """Return ``payload`` sealed to ``recipients`` and signed by ``signer``.

    Args:
        payload: What to seal.
        context: What it belongs to. Kept in clear; whoever opens it must have the same.
        recipients: Who can open it; 1 to 64.
        signer: Who vouches for it.
        now: When it is made; aware.
        random: Returns that many bytes nobody can predict: ``os.urandom``.

    Raises:
        ValueError: No recipient, or more than 64.
    """
    if not 1 <= len(recipients) <= MAX_STANZAS:
        raise ValueError(
            f"{len(recipients)} recipients; 1 to {MAX_STANZAS} are possible"
        )
    record_id, object_key = random(RECORD_ID_SIZE), random(_OBJECT_KEY_SIZE)
    keys = _derived(object_key, record_id, context)
    sealed_payload = b"".join(_sealed_chunks(payload, keys.encryption))
    header = MAGIC + bytes([VERSION, SUITE_CLASSICAL])
    header += _field(0x01, record_id)
    header += _field(0x02, signer.id)
    header += _field(0x03, struct.pack(">Q", int(now.timestamp())))
    header += _field(0x04, context)
    header += _field(0x05, hashlib.sha256(sealed_payload).digest())
    header += _field(0x06, keys.commitment)
    info = _stanza_info(record_id, context)
    for recipient in recipients:
        body = recipient.wrap(object_key, info)
        header += _field(0x07, bytes([_X25519_STANZA]) + recipient.key_id + body)
    header += _field(0x08, _hmac(keys.authentication, header))
    header += _field(0x09, signer.sign(header))
    return SealedRecord(header, sealed_payload)


def unseal(
    record: SealedRecord,
    context: bytes,
    *,
    identities: Sequence[Identity],
    trusted: TrustedSigners,
) -> bytes:
    """Return the payload of ``record``; the inverse of :func:`seal`.

    Raises:
        UnknownFormatError: The version or suite is not known here.
        UntrustedSignerError: A gateway that is not trusted made it.
        NoStanzaError: It is not sealed to any of ``identities``.
        DamagedSealError: It changed, or belongs to another object.
    """
    header = parse(record.header)
    trusted.verify(header.signer_id, header.signature, header.signed)
    if not hmac.compare_digest(header.context, context):
        raise DamagedSealError(
            "the record belongs to another object, or the object was changed",
            hint="UID, size, bits and pixels of an object must be those that were "
            "sealed. Ask for the object as it was sent.",
        )
    if hashlib.sha256(record.payload).digest() != header.payload_digest:
        raise DamagedSealError("the sealed payload is not the one that was signed")
    object_key = _unwrapped(header, identities)
    keys = _derived(object_key, header.record_id, context)
    if not hmac.compare_digest(keys.commitment, header.commitment):
        raise DamagedSealError("the record does not commit to its key")
    if not hmac.compare_digest(
        _hmac(keys.authentication, header.authenticated), header.authentication
    ):
        raise DamagedSealError("the header of the record does not authenticate")
    return b"".join(_opened_chunks(record.payload, keys.encryption))


def parse(header: bytes) -> Header:
    """Return what ``header`` says; nothing of it is checked but its form.

    Raises:
        UnknownFormatError: The version or suite is not known here.
        DamagedSealError: It is not a header, or not exactly one.
    """
    if len(header) > MAX_HEADER or not header.startswith(MAGIC):
        raise DamagedSealError("this is not the header of a sealed record")
    version, suite = header[8:9], header[9:10]
    if version != bytes([VERSION]) or suite != bytes([SUITE_CLASSICAL]):
        raise UnknownFormatError(
            f"a sealed record of version {version.hex()}, suite {suite.hex()}",
            hint="A newer version of this software sealed it: upgrade.",
        )
    fields, position = list(_fields(header)), 0

    def take(tag: int, size: int | None = None) -> tuple[int, bytes]:
        nonlocal position
        if position == len(fields) or fields[position][0] != tag:
            raise DamagedSealError(f"the record's header lacks field {tag:02x}")
        _, start, body = fields[position]
        if size is not None and len(body) != size:
            raise DamagedSealError(f"field {tag:02x} of the header has a wrong length")
        position += 1
        return start, body

    _, record_id = take(0x01, RECORD_ID_SIZE)
    _, signer = take(0x02, SIGNER_ID_SIZE)
    _, created = take(0x03, 8)
    _, context = take(0x04)
    _, payload_digest = take(0x05, _DIGEST_SIZE)
    _, commitment = take(0x06, _DIGEST_SIZE)
    stanzas: list[tuple[bytes, bytes]] = []
    while not stanzas or (position < len(fields) and fields[position][0] == 0x07):
        _, stanza = take(0x07, 1 + KEY_ID_SIZE + STANZA_SIZE)
        if stanza[0] != _X25519_STANZA or len(stanzas) == MAX_STANZAS:
            raise DamagedSealError("a stanza that suite 01 does not have")
        stanzas.append((stanza[1 : 1 + KEY_ID_SIZE], stanza[1 + KEY_ID_SIZE :]))
    authentication_start, authentication = take(0x08, _DIGEST_SIZE)
    signature_start, signature = take(0x09, SIGNATURE_SIZE)
    if position != len(fields):
        raise DamagedSealError("something stands behind the record's signature")
    return Header(
        record_id=record_id,
        signer_id=signer,
        created=int.from_bytes(created),
        context=context,
        payload_digest=payload_digest,
        commitment=commitment,
        stanzas=tuple(stanzas),
        authentication=authentication,
        signature=signature,
        authenticated=header[:authentication_start],
        signed=header[:signature_start],
    )


class _Keys(NamedTuple):
    encryption: bytes
    authentication: bytes
    commitment: bytes


def _derived(object_key: bytes, record_id: bytes, context: bytes) -> _Keys:
    info = b"miadmark/v1/seal" + bytes([SUITE_CLASSICAL])
    info += hashlib.sha256(context).digest()
    keys = HKDF(SHA512(), length=96, salt=record_id, info=info).derive(object_key)
    return _Keys(keys[:32], keys[32:64], keys[64:])


def _stanza_info(record_id: bytes, context: bytes) -> bytes:
    info = b"miadmark/v1/stanza" + bytes([SUITE_CLASSICAL]) + record_id
    return info + hashlib.sha256(context).digest()


def _unwrapped(header: Header, identities: Sequence[Identity]) -> bytes:
    info = _stanza_info(header.record_id, header.context)
    for identity in identities:
        for key_id, body in header.stanzas:
            if key_id == identity.key_id:
                return identity.unwrap(body, info)
    raise NoStanzaError(
        "the record is not sealed to this identity",
        hint="Ask the sending site to add this site as a recipient (miadmark keys "
        "export-recipient writes the file it needs), and to send the object again.",
    )


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _sealed_chunks(payload: bytes, key: bytes) -> Iterator[bytes]:
    cipher, last = AESGCM(key), max(len(payload) - 1, 0) // _CHUNK
    for number in range(last + 1):
        chunk = payload[number * _CHUNK : (number + 1) * _CHUNK]
        yield cipher.encrypt(_nonce(number, is_last=number == last), chunk, None)


def _opened_chunks(sealed: bytes, key: bytes) -> Iterator[bytes]:
    cipher, size = AESGCM(key), _CHUNK + _TAG_SIZE
    last = max(len(sealed) - 1, 0) // size
    for number in range(last + 1):
        chunk = sealed[number * size : (number + 1) * size]
        try:
            yield cipher.decrypt(_nonce(number, is_last=number == last), chunk, None)
        except InvalidTag:
            raise DamagedSealError("the sealed payload does not authenticate") from None


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11) + bytes([is_last])


def _field(tag: int, body: bytes) -> bytes:
    return _FIELD.pack(tag, len(body)) + body


def _fields(header: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield tag, start and body of each field."""
    start = len(MAGIC) + 2
    while start < len(header):
        body = start + _FIELD.size
        if body > len(header):
            raise DamagedSealError("the record's header is cut short")
        tag, length = _FIELD.unpack_from(header, start)
        if body + length > len(header):
            raise DamagedSealError("the record's header is cut short")
        yield tag, start, header[body : body + length]
        start = body + length
