"""Storage SCU: send instances over one association, and say truthfully what became of it.

A file is sent as it lies in the spool, byte for byte, if its destination takes that
transfer syntax. Otherwise it is put into the first lossless one, in the destination's
order, that the receiver has accepted on this very association and that gives the pixels
back as they were. Nothing is ever made lossy here: a receiver that takes nothing else
gets nothing.

Success and warning statuses mean that the receiver has it (PS3.4 B.2.3); every other end
is an error, permanent or passing.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from pydicom import dcmread, uid
from pynetdicom.status import code_to_category

from dicom_node.association import AssociationError, RejectedError, associate
from dicom_node.compression import COMPRESSED, can, put_into
from dicom_node.decoding import decode_frames
from dicom_node.elements import Limits
from dicom_node.errors import FilterError, SendInterruptedError, SendRefusedError
from dicom_node.grants import fingerprint
from dicom_node.instance import OpenInstance
from dicom_node.part10 import read_head
from dicom_node.pixel_layout import NATIVE, TAGS
from dicom_node.sealed_file import SealedFile
from dicom_node.syntaxes import UIDS, Syntax

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import TracebackType

    from pydicom.uid import UID

    from dicom_node.association import Association
    from dicom_node.config import Destination
    from dicom_node.decoding import Decode
    from dicom_node.mapped import Source
    from dicom_node.part10 import Head

_NATIVE: Final = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)

MOST_CONTEXTS: Final = 128
"""Of one association (PS3.8 9.3.2.2)."""

_PATIENCE_S: Final = 10.0
"""How long a receiver is left without a word before it is called again."""


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

    def __init__(
        self,
        destination: Destination,
        calling_ae_title: str,
        decode: Decode = decode_frames,
    ) -> None:
        """Prepare; the association is opened by the first instance.

        Args:
            destination: Where to send.
            calling_ae_title: How this node calls itself.
            decode: Calls the codecs, for what came compressed.
        """
        self._decode = decode
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
        file: Path | SealedFile,
        allow: Callable[[Receiver], object] = lambda _: None,
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
        head = _head(file)
        sop_class, syntax = head.sop_class_uid, head.transfer_syntax_uid
        association = self._taking(sop_class, syntax)
        if association is not None:
            allow(self._receiver(association))
            self._judge(self._sent(association, file, head))
            return
        offered = self._offered(syntax, _abilities(file, syntax))
        _, accepted = self._associated(sop_class, syntax, offered)
        started = time.monotonic()
        path = self._ready(file, syntax, accepted)
        try:
            if time.monotonic() - started > _PATIENCE_S:
                self.close()  # the receiver may have given up waiting by now
            head = _head(path)
            association, _ = self._associated(sop_class, syntax, offered)
            if (sop_class, head.transfer_syntax_uid) not in association.contexts:
                raise SendInterruptedError(
                    f"{self._named()} takes other transfer syntaxes than a moment ago"
                )
            allow(self._receiver(association))
            status = self._sent(association, path, head)
        finally:
            if path != file:
                path.unlink(missing_ok=True)
        self._judge(status)

    def _taking(self, sop_class: str, syntax: str) -> Association | None:
        """Return the open association if it takes objects of a kind as they are."""
        first, association = self.destination.transfer_syntaxes[0], self._association
        if association is None or (sop_class, syntax) not in association.contexts:
            return None
        is_first = first is Syntax.AS_IS or UIDS[first] == syntax
        return association if is_first and association.is_established else None

    def _sent(self, association: Association, path: Source, head: Head) -> int:
        try:
            return association.store(path, head)
        except AssociationError as error:
            self.close()
            raise SendInterruptedError(
                f"{self._named()}: the association broke: {error}",
                hint="It may have the instance; it is sent again to be sure.",
            ) from error
        except OSError as error:
            raise SendInterruptedError(
                f"{path} cannot be read: {error.strerror}"
            ) from error

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        """Return who would be sent an instance of that class and transfer syntax.

        Raises:
            SendRefusedError: It takes no such instance.
            SendInterruptedError: It cannot be reached.
        """
        offered = self._offered(syntax, COMPRESSED)
        association, _ = self._associated(sop_class, syntax, offered)
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
            raise SendInterruptedError(
                f"{self._named()}: the association broke"
            ) from error
        if certificate is None:
            return ""
        return fingerprint(x509.load_der_x509_certificate(certificate))

    def close(self) -> None:
        """Release the association, if there is one."""
        association, self._association = self._association, None
        if association is not None:
            association.release()

    def _judge(self, status: int) -> None:
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

    def _offered(self, syntax: str, able: Collection[UID]) -> list[UID]:
        """Return what an object may be sent in, best first.

        Args:
            syntax: What it is in.
            able: The compressed ones that it may be put into.
        """
        offered = [
            uid.UID(syntax) if choice is Syntax.AS_IS else UIDS[choice]
            for choice in self.destination.transfer_syntaxes
        ]
        possible = {uid.UID(syntax), *_NATIVE, *able}
        return [to for to in dict.fromkeys(offered) if to in possible]

    def _associated(
        self, sop_class: str, syntax: str, offered: Sequence[UID]
    ) -> tuple[Association, list[UID]]:
        """Return the association, and what of ``offered`` was accepted on it, in order.

        Raises:
            SendRefusedError: Nothing was.
            SendInterruptedError: There is no association.
        """
        association = self._association
        if not offered:
            raise self._refusal(sop_class, syntax)
        wanted = {(sop_class, to) for to in offered}
        is_good = association is not None and association.is_established
        if association is None or not is_good or not wanted <= self._proposed:
            self.close()
            both = wanted | self._proposed
            self._proposed = both if len(both) <= MOST_CONTEXTS else wanted
            self._association = association = self._open()
        taken = association.contexts
        accepted = [to for to in offered if (sop_class, to) in taken]
        if not accepted:
            raise self._refusal(sop_class, syntax)
        return association, accepted

    def _refusal(self, sop_class: str, syntax: str) -> SendRefusedError:
        return SendRefusedError(
            f"{self._named()} takes no {uid.UID(sop_class).name} in "
            f"{uid.UID(syntax).name}, nor in a lossless syntax that it may be put into",
            hint="Add the SOP class and a lossless syntax at the receiver or to "
            "transfer_syntaxes, or another destination. Nothing is made lossy.",
        )

    def _ready(
        self, file: Path | SealedFile, syntax: str, accepted: Sequence[UID]
    ) -> Path | SealedFile:
        """Return the file to be sent: ``file``, or a copy in another syntax beside it.

        Raises:
            SendRefusedError: It cannot be put into any that the receiver takes.
        """
        if accepted[0] == syntax:
            return file
        try:
            instance = OpenInstance.read(file, Limits())
        except FilterError as error:
            raise SendRefusedError(str(error), hint=error.hint) from error
        except OSError as error:
            raise SendInterruptedError(
                f"{file} cannot be read: {error.strerror}"
            ) from error
        last: FilterError | None = None
        for to in accepted:
            if to == syntax:
                return file
            try:
                ready = put_into(instance, to, self._decode)
            except FilterError as error:
                last = error
                continue
            return _written(file, ready)
        raise SendRefusedError(
            f"{self._named()} takes no transfer syntax that the instance can be put "
            f"into: {last}",
            hint=last.hint if last else "",
        ) from last

    def _open(self) -> Association:
        destination, tls = self.destination, None
        if destination.tls_ca is not None:
            tls = (
                self._tls_context(destination.tls_ca),
                destination.tls_hostname or destination.host,
            )
        try:
            return associate(
                destination.host,
                destination.port,
                calling=self._calling,
                called=destination.ae_title,
                kinds=sorted(self._proposed),
                timeout_s=destination.timeout_s,
                tls=tls,
            )
        except RejectedError as error:
            raise SendInterruptedError(
                f"{self._named()} rejected the association",
                hint="Does it know this node's AE title and address?",
            ) from error
        except AssociationError as error:
            raise SendInterruptedError(
                f"{self._named()} cannot be reached, or its certificate is not valid: "
                f"{error}",
                hint="echoscu, or openssl s_client -connect host:port, says more.",
            ) from error

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


def _head(file: Source) -> Head:
    try:
        return read_head(file)
    except OSError as error:
        raise SendInterruptedError(
            f"{file} cannot be read: {error.strerror}"
        ) from error
    except FilterError as error:
        raise SendRefusedError(str(error), hint=error.hint) from error


def _abilities(file: Source, syntax: str) -> tuple[UID, ...]:
    """Return the compressed syntaxes that an object may be put into.

    Of one that is compressed in another way, this is known once it is decompressed.
    """
    try:
        with file.open("rb") as stream:
            attributes = dcmread(stream, stop_before_pixels=True, specific_tags=[*TAGS])
    except Exception:  # noqa: BLE001 it is read with more care once it has to be
        return ()
    if "Rows" not in attributes:
        return ()
    if syntax not in NATIVE:
        return COMPRESSED
    return tuple(to for to in COMPRESSED if can(attributes, to))


def _written(file: Path | SealedFile, instance: OpenInstance) -> Path | SealedFile:
    """Write a copy beside ``file``, for its owner only; half of it is not left behind.

    Under a name of its own: another route may send the same file at the same time.
    """
    descriptor, name = -1, ""
    try:
        if isinstance(file, SealedFile):
            return file.beside(instance.file.chunks())
        descriptor, name = tempfile.mkstemp(".part", f"{file.name}.", file.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(instance.file.chunks())
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise SendInterruptedError(
            f"a copy of {file} cannot be written: {error.strerror}",
            hint="Check its disk: full, read-only, or gone?",
        ) from error
    return Path(name)
