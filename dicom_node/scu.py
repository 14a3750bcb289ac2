"""Storage SCU: send instances over one association, and say truthfully what became of it.

A file is sent as it lies in the spool, byte for byte, if the receiver takes its transfer
syntax; an uncompressed little-endian one is otherwise put into the other syntax of that
kind. Nothing is ever compressed or decompressed here.

Success and warning statuses mean that the receiver has it (PS3.4 B.2.3); every other end
is an error, permanent or passing.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from pydicom import dcmread, uid
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config
from pynetdicom.presentation import build_context
from pynetdicom.status import code_to_category

from dicom_node.errors import SendInterruptedError, SendRefusedError
from dicom_node.grants import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pydicom.uid import UID
    from pynetdicom.association import Association

    from dicom_node.config import Destination

_NATIVE: Final = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Who is at the other end of an association."""

    ae_title: str
    address: str
    """``host:port``."""
    fingerprint: str
    """:func:`~dicom_node.grants.fingerprint` of the certificate that it has just shown;
    empty without TLS."""


class Sending:
    """An association with one destination, for instances of one kind."""

    def __init__(self, destination: Destination, calling_ae_title: str) -> None:
        """Prepare; the association is opened by the first instance."""
        self.destination, self._calling = destination, calling_ae_title
        self._association: Association | None = None
        self._kinds: set[tuple[str, str]] = set()

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
        self, file: Path, allow: Callable[[Receiver], object] = lambda _: None
    ) -> None:
        """Return once the destination has said that it has the instance in ``file``.

        Args:
            file: What to send.
            allow: Called with who is at the other end of the very association that the
                instance is about to be sent on; raises if it may not be.

        Raises:
            SendRefusedError: It said no, and would say so again.
            SendInterruptedError: Something came between; the same may work later.
        """
        sop_class, syntax = _kind(file)
        association = self._associated(sop_class, syntax)
        allow(self._receiver(association))
        accepted = _accepted(association, sop_class, syntax)
        path = file if accepted == syntax else _reencoded(file, accepted)
        _config.STORE_SEND_CHUNKED_DATASET = True
        try:
            answer = association.send_c_store(path)
        except (RuntimeError, ValueError, OSError, AttributeError) as error:
            self.close()
            raise SendInterruptedError(
                f"{self._named()}: the association broke: {type(error).__name__}"
            ) from error
        finally:
            if path != file:
                path.unlink(missing_ok=True)
        self._judge(answer.get("Status"))

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        """Return who would be sent an instance of that class and transfer syntax.

        Raises:
            SendRefusedError: It takes no such instance.
            SendInterruptedError: It cannot be reached.
        """
        return self._receiver(self._associated(sop_class, syntax))

    def _receiver(self, association: Association) -> Receiver:
        return Receiver(
            ae_title=self.destination.ae_title,
            address=self.destination.address,
            fingerprint=self._shown(association),
        )

    def _shown(self, association: Association) -> str:
        """Return the fingerprint of the certificate that the peer has shown."""
        connection = association.dul.socket
        tls = None if connection is None else connection.socket
        if not isinstance(tls, ssl.SSLSocket):
            if self.destination.tls_ca is not None:
                # It has just gone; that is not somebody without a certificate.
                self.close()
                raise SendInterruptedError(f"{self._named()}: the association broke")
            return ""
        certificate = tls.getpeercert(binary_form=True)
        return fingerprint(x509.load_der_x509_certificate(certificate or b""))

    def close(self) -> None:
        """Release the association, if there is one."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            association.release()

    def _judge(self, status: int | None) -> None:
        if status is None:
            self.close()
            raise SendInterruptedError(
                f"{self._named()} gave no answer",
                hint="It may have the instance; it is sent again to be sure.",
            )
        category = code_to_category(status)
        if category in {"Success", "Warning"}:
            return
        said = f"{self._named()} answered 0x{status:04X} ({category.lower()})"
        # Out of resources passes; so does a processing failure, now and then.
        if status >> 8 == 0xA7 or status == 0x0110:
            raise SendInterruptedError(said)
        raise SendRefusedError(
            said, hint="The log of the receiver says why; PS3.4 B.2.3 what it means."
        )

    def _associated(self, sop_class: str, syntax: str) -> Association:
        current = self._association
        if current is not None and current.is_established:
            if (sop_class, syntax) in self._kinds:
                return current
            self.close()
        self._kinds.add((sop_class, syntax))
        self._association = self._open()
        try:
            _accepted(self._association, sop_class, syntax)
        except SendRefusedError:
            self._kinds.discard((sop_class, syntax))
            raise
        return self._association

    def _open(self) -> Association:
        destination = self.destination
        ae = AE(self._calling)
        ae.acse_timeout = ae.dimse_timeout = destination.timeout_s
        ae.network_timeout = ae.connection_timeout = destination.timeout_s
        proposed = sorted(
            {
                (sop_class, offered)
                for sop_class, syntax in self._kinds
                for offered in ({syntax, *_NATIVE} if _is_native(syntax) else {syntax})
            }
        )
        # A context is answered with one syntax, so each has a context of its own.
        contexts = [build_context(*kind) for kind in proposed[:128]]
        tls = None
        if destination.tls_ca is not None:
            tls = (
                self._tls_context(destination.tls_ca),
                destination.tls_hostname or destination.host,
            )
        try:
            association = ae.associate(
                destination.host,
                destination.port,
                contexts=contexts,
                ae_title=destination.ae_title,
                max_pdu=0,
                tls_args=tls,
            )
        except (OSError, RuntimeError) as error:
            raise SendInterruptedError(
                f"{self._named()} cannot be reached: {type(error).__name__}"
            ) from error
        if association.is_rejected:
            raise SendInterruptedError(
                f"{self._named()} rejected the association",
                hint="Does it know this node's AE title and address?",
            )
        if not association.is_established:
            raise SendInterruptedError(
                f"{self._named()} cannot be reached, or its certificate is not valid",
                hint="echoscu, or openssl s_client -connect host:port, says more.",
            )
        return association

    def _tls_context(self, ca: Path) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise SendInterruptedError(
                f"{self._named()}: {ca} cannot be read: {error.strerror}"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _named(self) -> str:
        return f"{self.destination.name} ({self.destination.address})"


def _kind(file: Path) -> tuple[str, str]:
    meta = read_file_meta_info(file)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def _is_native(syntax: str) -> bool:
    return syntax in _NATIVE


def _accepted(association: Association, sop_class: str, syntax: str) -> UID:
    """Return the syntax that an instance is to be sent in.

    Raises:
        SendRefusedError: The receiver takes none that would do.
    """
    taken = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == sop_class
    }
    for wanted in (syntax, *(_NATIVE if _is_native(syntax) else ())):
        if wanted in taken:
            return uid.UID(wanted)
    raise SendRefusedError(
        f"the receiver takes no {uid.UID(sop_class).name} in {uid.UID(syntax).name}",
        hint="Add the SOP class and syntax at the receiver, or another destination.",
    )


def _reencoded(file: Path, syntax: UID) -> Path:
    """Return a copy of an uncompressed file in another uncompressed syntax."""
    dataset = dcmread(file)
    dataset.file_meta.TransferSyntaxUID = syntax
    copy = Path(f"{file}.{syntax.rpartition('.')[2]}.part")
    dataset.save_as(
        copy,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=False,
    )
    return copy
