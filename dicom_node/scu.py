"""Storage SCU: send instances over one association, and say truthfully what became of it.

What an object is sent in is decided by :mod:`dicom_node.outgoing`, among what the
receiver has accepted on this very association: one that takes nothing but lossy syntaxes
gets nothing.

Success and warning statuses mean that the receiver has it (PS3.4 B.2.3); every other end
is an error, permanent or passing.
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from pydicom import uid

from dicom_node.answer import judge
from dicom_node.association import VERIFICATION, AssociationError
from dicom_node.calling_tls import tls_to
from dicom_node.decoding import decode_frames
from dicom_node.errors import (
    BrokenOffError,
    SendInterruptedError,
    UnreachableError,
)
from dicom_node.grants import fingerprint
from dicom_node.negotiation import RejectedError, associate
from dicom_node.outgoing import (
    Receiver,
    abilities,
    head_of,
    offered,
    ready,
    untaken,
)
from dicom_node.syntaxes import UIDS, Syntax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from pydicom.uid import UID

    from dicom_node.association import Association
    from dicom_node.decoding import Decode
    from dicom_node.destination import Destination
    from dicom_node.file_meta import Head
    from dicom_node.outgoing import Computing
    from dicom_node.sealed_file import Stored
    from dicom_node.throttle import Throttle

logger = logging.getLogger(__name__)

MOST_CONTEXTS: Final = 128
"""Of one association (PS3.8 9.3.2.2)."""

_NATIVE: Final = uid.ImplicitVRLittleEndian
"""What everyone understands (PS3.5 10.1)."""

_PATIENCE_S: Final = 10.0
"""How long a receiver is left without a word before it is called again."""


class Sending:
    """An association with one destination, for instances of one kind."""

    def __init__(
        self,
        destination: Destination,
        calling_ae_title: str,
        decode: Decode = decode_frames,
        throttle: Throttle | None = None,
    ) -> None:
        """Prepare; the association is opened by the first instance.

        Args:
            destination: Where to send.
            calling_ae_title: How this node calls itself.
            decode: Calls the codecs, for what came compressed.
            throttle: Holds it to a speed.
        """
        self._decode, self._throttle = decode, throttle
        self.destination, self._calling = destination, calling_ae_title
        self._association: Association | None = None
        self._proposed: set[tuple[str, UID]] = set()
        """SOP class and transfer syntax of each context."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the association."""
        self.close()

    def send(
        self,
        file: Stored,
        allow: Callable[[Receiver], object] = lambda _: None,
        computing: Computing = nullcontext,
    ) -> None:
        """Return once the destination has said that it has the instance in ``file``.

        Args:
            file: What to send.
            allow: Called with who is at the other end of the very association that the
                instance is about to be sent on; raises if it may not be.
            computing: Surrounds what is done if it has to be put into another form.

        Raises:
            SendRefusedError: It said no, and would say so again.
            SendInterruptedError: Something came between; the same may work later.
        """
        head = head_of(file)
        sop_class, syntax = head.sop_class_uid, head.transfer_syntax_uid
        association = self._taking(sop_class, syntax)
        if association is not None:
            allow(self._receiver(association))
            self._note(self._sent(association, file, head), head)
            return
        wanted = offered(self.destination, syntax, abilities(file, syntax))
        _, accepted = self._associated(sop_class, syntax, wanted)
        started = time.monotonic()
        path = ready(
            file, syntax, accepted, self._decode, self.destination.named, computing
        )
        try:
            if time.monotonic() - started > _PATIENCE_S:
                self.close()  # the receiver may have given up waiting by now
            head = head_of(path)
            association, _ = self._associated(sop_class, syntax, wanted)
            if (sop_class, head.transfer_syntax_uid) not in association.contexts:
                raise SendInterruptedError(
                    f"{self.destination.named} takes other transfer syntaxes than a "
                    "moment ago"
                )
            allow(self._receiver(association))
            status = self._sent(association, path, head)
        finally:
            if path != file:
                path.unlink(missing_ok=True)
        self._note(status, head)

    def _note(self, status: int, head: Head) -> None:
        """Judge an answer; a warning is noted, and the receiver has the object."""
        said = judge(status, self.destination.named)
        if said:
            logger.warning("warned instance=%s: %s", head.sop_instance_uid, said)

    def _taking(self, sop_class: str, syntax: str) -> Association | None:
        """Return the open association if it takes objects of a kind as they are."""
        first, association = self.destination.transfer_syntaxes[0], self._association
        if association is None or (sop_class, syntax) not in association.contexts:
            return None
        is_first = first is Syntax.AS_IS or UIDS[first] == syntax
        return association if is_first and association.is_established else None

    def _sent(self, association: Association, path: Stored, head: Head) -> int:
        try:
            return association.store(path, head)
        except AssociationError as error:
            self.close()
            raise BrokenOffError(
                f"{self.destination.named}: the association broke: {error}",
                hint="It may have the instance; it is sent again to be sure.",
            ) from error
        except OSError as error:
            raise SendInterruptedError(
                f"{path} cannot be read: {error.strerror}"
            ) from error

    def probe(self) -> None:
        """Return if the destination is there: it answers a C-ECHO.

        One that takes an association and knows no echo is there as well.

        Raises:
            UnreachableError: It is not, or takes no association.
        """
        self.close()
        self._proposed = {(VERIFICATION, _NATIVE)}
        try:
            association = self._open()
            if association.contexts:
                association.echo()
            association.release()
        except AssociationError as error:
            raise UnreachableError(
                f"{self.destination.named} does not answer an echo: {error}"
            ) from error
        finally:
            self._proposed = set()

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        """Return who would be sent an instance of that class and transfer syntax.

        Raises:
            SendRefusedError: It takes no such instance.
            SendInterruptedError: It cannot be reached.
        """
        wanted = offered(self.destination, syntax)
        association, _ = self._associated(sop_class, syntax, wanted)
        return self._receiver(association)

    def _receiver(self, association: Association) -> Receiver:
        return Receiver(
            ae_title=self.destination.ae_title,
            address=self.destination.address,
            fingerprint=self._shown(association),
        )

    def _shown(self, association: Association) -> str:
        """Return the fingerprint of the certificate that the peer has shown."""
        try:
            certificate = association.certificate()
        except AssociationError as error:
            # It has just gone; that is not somebody without a certificate.
            raise UnreachableError(
                f"{self.destination.named}: the association broke"
            ) from error
        if certificate is None:
            return ""
        return fingerprint(x509.load_der_x509_certificate(certificate))

    def close(self) -> None:
        """Release the association, if there is one."""
        association, self._association = self._association, None
        if association is not None:
            association.release()

    def _associated(
        self, sop_class: str, syntax: str, forms: Sequence[UID]
    ) -> tuple[Association, list[UID]]:
        """Return the association, and what of ``forms`` was accepted on it, in order.

        Raises:
            SendRefusedError: Nothing was.
            SendInterruptedError: There is no association.
        """
        association = self._association
        if not forms:
            raise untaken(self.destination.named, sop_class, syntax, was_asked=False)
        wanted = {(sop_class, to) for to in forms}
        is_good = association is not None and association.is_established
        if association is None or not is_good or not wanted <= self._proposed:
            self.close()
            both = wanted | self._proposed
            self._proposed = both if len(both) <= MOST_CONTEXTS else wanted
            self._association = association = self._open()
        taken = association.contexts
        accepted = [to for to in forms if (sop_class, to) in taken]
        if not accepted:
            raise untaken(self.destination.named, sop_class, syntax, was_asked=True)
        return association, accepted

    def _open(self) -> Association:
        destination = self.destination
        tls = tls_to(destination.named, destination)
        try:
            return associate(
                destination.host,
                destination.port,
                calling=self._calling,
                called=destination.ae_title,
                kinds=sorted(self._proposed),
                timeout_s=destination.timeout_s,
                tls=tls,
                throttle=self._throttle,
            )
        except RejectedError as error:
            raise UnreachableError(
                f"{destination.named} rejected the association",
                hint="Does it know this node's AE title and address?",
            ) from error
        except AssociationError as error:
            raise UnreachableError(
                f"{destination.named} cannot be reached, or its certificate is not "
                f"valid: {error}",
                hint="echoscu, or openssl s_client -connect host:port, says more.",
            ) from error
