"""The release desk: an object key for whoever holds a grant, and for nobody else.

In the mediated mode a marked object carries no stanza for its receiver, who asks here
for each object; a grant that was revoked is worth nothing from the next request on. The
order of checks, everything public first::

    pace | sizes and form | suite | signed by this site | grant
    | the ledger knows the record, and its key was not destroyed
    | the context that was asked for is the record's
    | object key | commitment | header MAC | audit entry on disk | answer

Up to the context no secret is used; whether the receiver's object is the one that was
marked, the desk cannot see: the receiver's strip filter does. Whoever is refused hears
one sentence, whatever the reason; that is in the audit. Nothing here knows a socket: a
request goes in, with the fingerprint of the certificate that TLS has shown, and an
answer comes out.
"""

from __future__ import annotations

import logging
from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Never

from dicom_node.asking import Asked, MalformedRequestError, answer, answer_info
from dicom_node.audit import Event
from dicom_node.authorising import Release, Request
from dicom_node.errors import (
    AuditError,
    KeyFolderError,
    KeyServiceError,
    LedgerError,
    LostRecordError,
    NodeError,
    NotGrantedError,
    ShreddedError,
)
from dicom_node.keys.ring import KeyKind
from dicom_node.pace import Pace
from dicom_node.rewrapping import LedgerOpener
from miadmark_core.errors import DamagedSealError, MiadMarkError, SealError
from miadmark_core.sealing.epoch_key import EpochKey
from miadmark_core.sealing.recipients import Recipient
from miadmark_core.sealing.record import parse
from miadmark_core.sealing.seal import (
    believe_key,
    object_key,
    require_context,
    require_suite,
)
from miadmark_core.sealing.signing import Trust, TrustedSigners
from miadmark_core.sealing.stanza import StanzaType, body_size
from miadmark_core.sealing.suites import OBJECT_KEY_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicom_node.audit import Audit
    from dicom_node.authorising import Grant
    from dicom_node.grants import Grants
    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger import Ledger
    from miadmark_core.sealing.record import Header

logger = logging.getLogger(__name__)

PER_MINUTE: Final = 600
"""Requests that one certificate key may make."""

_REFUSED: Final = "the desk does not release this"
_UNAVAILABLE: Final = "the desk cannot answer now"
_REFUSALS: Final = (
    MalformedRequestError,
    SealError,
    NotGrantedError,
    ShreddedError,
    LostRecordError,
)
_PASSING: Final = (KeyServiceError, KeyFolderError, LedgerError, AuditError)


class DeskRefusedError(NodeError):
    """The answer is no; why, the audit says."""


class DeskUnavailableError(NodeError):
    """There is no answer for now; the same may be asked again later."""


class Desk:
    """Decides about one request after another."""

    def __init__(
        self,
        keyring: Keyring,
        ledger: Ledger,
        grants: Grants,
        audit: Audit,
        clock: Callable[[], datetime],
        per_minute: int = PER_MINUTE,
    ) -> None:
        """Keep what the decisions need.

        Args:
            keyring: Of this site.
            ledger: Knows what this site has marked.
            grants: Who may have originals.
            audit: Where a release is written down before it happens.
            clock: Returns the time, aware.
            per_minute: Requests that one certificate key may make.
        """
        self._keyring, self._ledger, self._grants = keyring, ledger, grants
        self._audit, self._clock = audit, clock
        self._pace = Pace(per_minute)

    def answer(self, request: bytes, fingerprint: str) -> bytes:
        """Return the answer to a request; the release is written down by then.

        Args:
            request: :class:`~dicom_node.asking.Asked`, from outside.
            fingerprint: :func:`~dicom_node.grants.fingerprint` of the certificate that
                TLS has shown; empty if none.

        Raises:
            NoRequestError: It is no JSON, or too long.
            DeskRefusedError: No; always in the same words.
            DeskUnavailableError: Not now.
        """
        now = self._clock()
        if not self._pace.allows(fingerprint, now):
            logger.warning("too many requests certificate_key=%s", fingerprint[:16])
            raise DeskUnavailableError(_UNAVAILABLE)
        said: dict[str, str | int] = {
            "how": Release.DESK.value,
            "certificate_key": fingerprint[:16],
        }
        try:
            return self._released(request, fingerprint, said, now)
        except _REFUSALS as error:
            self._refuse(error, said)
        except _PASSING as error:
            logger.warning("no answer for now reason=%s", error)
            raise DeskUnavailableError(_UNAVAILABLE) from error

    def _released(
        self,
        request: bytes,
        fingerprint: str,
        said: dict[str, str | int],
        now: datetime,
    ) -> bytes:
        """Return the answer; ``said`` gets what is known for the audit on the way."""
        self._keyring.refresh()
        asked = Asked.from_bytes(request)
        said |= {
            "ae_title": asked.ae_title,
            "purpose": asked.purpose,
            "study": asked.study_instance_uid,
        }
        header = parse(asked.header)
        said["record"] = header.record_id.hex()
        self._require_own(header)
        grant = self._granted(asked, header, fingerprint, now)
        said["grant"] = grant.id
        recipient = _recipient(grant)
        self._ledger.require_standing(header, asked.header)
        require_context(header, asked.context)
        key = self._object_key(header)
        info = answer_info(header, asked.nonce)
        answered = answer(recipient.wrap(header.suite, key, info).body)
        self._audit.add(Event.RELEASED, **said)
        logger.info("released record=%s grant=%d", said["record"], grant.id)
        return answered

    def _require_own(self, header: Header) -> None:
        """Return if a key of this very site signed the record, as its policy asks."""
        ring, verifiers = self._keyring.ring, self._keyring.verifiers()
        require_suite(header, ring.least_suite)
        own = [
            Trust(verifiers[entry.version], ring.tenant, entry.last_sequence)
            for entry in ring.of(KeyKind.SIGNING)
        ]
        TrustedSigners({trust.verifier.id: trust for trust in own}).verify(header)

    def _granted(
        self, asked: Asked, header: Header, fingerprint: str, now: datetime
    ) -> Grant:
        request = Request(
            release=Release.DESK,
            tenant=header.tenant,
            own_tenant=self._keyring.ring.tenant,
            ae_title=asked.ae_title,
            fingerprint=fingerprint,
            purpose=asked.purpose,
            sop_class_uid=_sop_class_uid(header),
            # What the receiver says of its study is its own word.
            study_instance_uid=self._ledger.study_of(header.record_id),
        )
        return self._grants.require(request, now)

    def _object_key(self, header: Header) -> bytes:
        """Return the object key, believed.

        How long a refusal takes does not say whether there was no stanza, a bad one, or
        one that holds another key.
        """
        openers = (
            LedgerOpener(self._keyring, self._ledger),
            self._keyring.epochs,
            _Nobody(),
        )
        failure: SealError | None = None
        try:
            key = object_key(header, openers)
        except SealError as error:
            key, failure = bytes(OBJECT_KEY_SIZE), error
        try:
            believe_key(header, key)
        except SealError as error:
            failure = failure or error
        if failure is not None:
            raise failure
        return key

    def _refuse(
        self, error: NodeError | MiadMarkError, said: dict[str, str | int]
    ) -> Never:
        logger.warning("refused certificate_key=%s", said["certificate_key"])
        try:
            self._audit.add(
                Event.REFUSED, **said, layer=_layer(error), reason=str(error)[:500]
            )
        except AuditError as full:
            logger.error("a refusal is not written down reason=%s", full)  # noqa: TRY400
        raise DeskRefusedError(_REFUSED) from None


class _Nobody:
    """Holds no key, which takes it as long as a stanza that does not open."""

    def object_key(self, header: Header) -> bytes | None:
        blank = bytes(body_size(StanzaType.EPOCH, header.suite))
        with suppress(DamagedSealError):
            EpochKey(1, bytes(32)).unwrap(header.suite, blank, header.stanza_info)
        return None


def _recipient(grant: Grant) -> Recipient:
    """Return whom an answer is sealed to.

    Raises:
        NotGrantedError: The grant does not say.
    """
    try:
        return Recipient(b64decode(grant.terms.recipient, validate=True))
    except ValueError:
        raise NotGrantedError(
            f"grant {grant.id} names no site file, and an answer is sealed to its keys"
        ) from None


def _sop_class_uid(header: Header) -> str:
    """Return the class in a context that this site has signed."""
    for line in header.context.decode("utf-8", "replace").split("\n"):
        if line.startswith("sop class "):
            return line.removeprefix("sop class ")
    return ""


def _layer(error: NodeError | MiadMarkError) -> str:
    """Return which check said no."""
    match error:
        case SealError():
            return error.layer.value
        case MalformedRequestError():
            return "form"
        case NotGrantedError():
            return "grant"
        case _:
            return "ledger"
