"""Seal a payload to those who may open it, and open it again: each other's inverse.

Opening checks in this order, everything public first::

    form | suite >= floor | gateway trusted | signature | payload digest | context
    | stanza | commitment | authentication | payload

AES-GCM does not commit to a key, so the commitment is compared before anything is opened.
Each check is a function of its own and none rests on another: with any one of them gone,
the others still refuse what was changed.

Of the last four, which use a secret, a caller may say no more to the outside than "no":
which one it was is in the error's ``layer``, for the audit.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from miadmark_core.errors import (
    DamagedSealError,
    Layer,
    NoStanzaError,
    SealError,
    UnknownFormatError,
)
from miadmark_core.sealing.record import (
    MAX_STANZAS,
    RECORD_ID_SIZE,
    Bound,
    SealedRecord,
    field,
    parse,
    stanza_field,
)
from miadmark_core.sealing.suites import OBJECT_KEY_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from miadmark_core.sealing.record import Header
    from miadmark_core.sealing.signing import Signer, TrustedSigners
    from miadmark_core.sealing.stanza import Opener, Wrapper
    from miadmark_core.sealing.suites import Suite

_CHUNK: Final = 64 * 1024
_TAG_SIZE: Final = 16


def seal(
    payload: bytes,
    context: bytes,
    *,
    suite: Suite,
    to: Sequence[Wrapper],
    signer: Signer,
    tenant: bytes,
    sequence: int,
    policy: int,
    method: str,
    now: datetime,
    random: Callable[[int], bytes],
) -> SealedRecord:
    """Return ``payload`` sealed to each of ``to`` and signed by ``signer``.

    Args:
        payload: What to seal.
        context: What it belongs to. Kept in clear; whoever opens it must have the same.
        suite: What to seal and sign with.
        to: Who can open it; 1 to 32.
        signer: Who vouches for it.
        tenant: Whose gateway that is; 16 bytes.
        sequence: The how many-eth record of the gateway this is.
        policy: Which of the site's policies is in force.
        method: How the payload undoes the mark; 1 to 64 ASCII characters.
        now: When it is made; aware.
        random: Returns that many bytes nobody can predict: ``os.urandom``.

    Raises:
        ValueError: No recipient, more than 32, or one twice; a context, method, tenant,
            number or time that cannot be written down.
    """
    if now.tzinfo is None:
        raise ValueError("a time without its zone")
    if not 1 <= len(to) <= MAX_STANZAS:
        raise ValueError(f"{len(to)} recipients; 1 to {MAX_STANZAS} are possible")
    bound = Bound(
        suite=suite,
        record_id=random(RECORD_ID_SIZE),
        tenant=tenant,
        signer_id=signer.verifier.id,
        created=int(now.timestamp()),
        sequence=sequence,
        policy=policy,
        method=method,
        context=context,
    )
    _require_writable(bound)
    object_key = random(OBJECT_KEY_SIZE)
    keys = _derived(object_key, bound)
    sealed_payload = b"".join(_sealed_chunks(payload, keys.encryption))
    stanzas = [wrapper.wrap(suite, object_key, bound.stanza_info) for wrapper in to]
    header = bound.encoded
    header += field(0x09, hashlib.sha256(sealed_payload).digest())
    header += field(0x0A, keys.commitment)
    header += b"".join(map(stanza_field, sorted(stanzas, key=lambda s: s.type)))
    header += field(0x0C, _hmac(keys.authentication, header))
    header += field(0x0D, signer.sign(suite, "record", header))
    try:
        parse(header)  # what could not be read again must not be written
    except SealError as error:
        raise ValueError(str(error)) from error
    return SealedRecord(header, sealed_payload)


def _require_writable(bound: Bound) -> None:
    try:
        len(bound.encoded)
    except (struct.error, UnicodeEncodeError) as error:
        raise ValueError(f"it cannot be written down: {error}") from error


def unseal(
    record: SealedRecord,
    context: bytes,
    *,
    openers: Sequence[Opener],
    trusted: TrustedSigners,
    least_suite: int = 1,
) -> bytes:
    """Return the payload of ``record``; the inverse of :func:`seal`.

    Raises:
        UnknownFormatError: The version or suite is not known here, or not enough.
        UntrustedSignerError: A gateway that is not trusted made it.
        NoStanzaError: It is not sealed to any of ``openers``.
        DamagedSealError: It changed, or belongs to another object.
    """
    header = believed(record, trusted, least_suite)
    require_context(header, context)
    return opened(header, record.payload, object_key(header, openers))


def believed(
    record: SealedRecord, trusted: TrustedSigners, least_suite: int = 1
) -> Header:
    """Return the header of ``record``, signed by a trusted gateway, with its payload.

    Raises:
        UnknownFormatError: The version or suite is not known here, or not enough.
        UntrustedSignerError: A gateway that is not trusted made it.
        DamagedSealError: It changed.
    """
    header = parse(record.header)
    require_suite(header, least_suite)
    trusted.verify(header)
    require_payload(header, record.payload)
    return header


def require_suite(header: Header, least: int) -> None:
    """Return if the record's suite is at least ``least``."""
    if header.suite.number < least:
        raise UnknownFormatError(
            f"a record of suite {header.suite.number:02x} ({header.suite.name}), and "
            f"this site opens none below {least:02x}",
            hint="Ask the sending site to seal with the newer one.",
            layer=Layer.SUITE,
        )


def require_context(header: Header, context: bytes) -> None:
    """Return if the record belongs to what ``context`` says."""
    if not hmac.compare_digest(header.context, context):
        raise DamagedSealError(
            "the record belongs to another object, or the object was changed",
            hint="UID, size, bits and pixels of an object must be those that were "
            "sealed. Ask for the object as it was sent.",
            layer=Layer.CONTEXT,
        )


def require_payload(header: Header, payload: bytes) -> None:
    """Return if ``payload`` is the one that was signed."""
    if not hmac.compare_digest(hashlib.sha256(payload).digest(), header.payload_digest):
        raise DamagedSealError(
            "the sealed payload is not the one that was signed",
            layer=Layer.PAYLOAD_DIGEST,
        )


def object_key(header: Header, openers: Sequence[Opener]) -> bytes:
    """Return the object key, from the first of ``openers`` that has it.

    Raises:
        NoStanzaError: None has.
        SealError: One should have, and its stanza does not open.
    """
    for opener in openers:
        key = opener.object_key(header)
        if key is not None:
            return key
    raise NoStanzaError(
        "the record is not sealed to this identity",
        hint="Ask the sending site to add this site as a recipient (miadmark keys "
        "export-recipient writes the file it needs) and to send the object again, or "
        "to grant it releases.",
        layer=Layer.STANZA,
    )


def opened(header: Header, payload: bytes, key: bytes) -> bytes:
    """Return the payload, opened with the object key.

    Raises:
        DamagedSealError: It is not this record's key, or something changed.
    """
    keys = _believed_keys(header, key)
    return b"".join(_opened_chunks(payload, keys.encryption))


def believe_key(header: Header, key: bytes) -> None:
    """Return if ``key`` is the record's object key; for whoever has no payload.

    Raises:
        DamagedSealError: It is not, or something changed.
    """
    _believed_keys(header, key)


def _believed_keys(header: Header, key: bytes) -> _Keys:
    keys = _derived(key, header)
    require_commitment(header, keys.commitment)
    require_authentication(header, keys.authentication)
    return keys


def require_commitment(header: Header, commitment: bytes) -> None:
    """Return if the record commits to the key that was found."""
    if not hmac.compare_digest(commitment, header.commitment):
        raise DamagedSealError(
            "the record does not commit to its key", layer=Layer.COMMITMENT
        )


def require_authentication(header: Header, key: bytes) -> None:
    """Return if whoever had the object key wrote the header."""
    if not hmac.compare_digest(_hmac(key, header.authenticated), header.authentication):
        raise DamagedSealError(
            "the header of the record does not authenticate",
            layer=Layer.AUTHENTICATION,
        )


class _Keys(NamedTuple):
    encryption: bytes
    authentication: bytes
    commitment: bytes


def _derived(key: bytes, bound: Bound) -> _Keys:
    info = bound.suite.label("seal") + bound.binding
    keys = HKDF(SHA512(), length=96, salt=bound.record_id, info=info).derive(key)
    return _Keys(keys[:32], keys[32:64], keys[64:])


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
    if last and len(sealed) - last * size == _TAG_SIZE:
        # An empty chunk behind a whole one: one payload would have two encodings.
        raise DamagedSealError("the sealed payload is oddly cut", layer=Layer.PAYLOAD)
    for number in range(last + 1):
        chunk = sealed[number * size : (number + 1) * size]
        try:
            yield cipher.decrypt(_nonce(number, is_last=number == last), chunk, None)
        except InvalidTag:
            raise DamagedSealError(
                "the sealed payload does not authenticate", layer=Layer.PAYLOAD
            ) from None


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11) + bytes([is_last])
