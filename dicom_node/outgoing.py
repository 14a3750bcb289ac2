"""What is sent: a file of the spool, in a form that its receiver takes.

A file is sent as it lies in the spool, byte for byte, if its destination takes that
transfer syntax. Otherwise it is put into the first lossless one, in the destination's
order, that the receiver takes and that gives the pixels back as they were. Nothing is
ever made lossy here.

Nothing here knows a network, or how a receiver says what it takes.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from pydicom import dcmread, uid

from dicom_node.compression import COMPRESSED, can, put_into
from dicom_node.elements import Limits
from dicom_node.errors import (
    FilterError,
    SendInterruptedError,
    SendRefusedError,
    UnaskedError,
)
from dicom_node.file_meta import read_head
from dicom_node.instance import OpenInstance
from dicom_node.pixel_layout import NATIVE, TAGS
from dicom_node.syntaxes import UIDS, Syntax

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager

    from pydicom.uid import UID

    from dicom_node.decoding import Decode
    from dicom_node.destination import Destination
    from dicom_node.file_meta import Head
    from dicom_node.sealed_file import Stored

    Computing = Callable[[], AbstractContextManager[object]]
    """Surrounds what takes long for its arithmetic, and not for the network."""

_NATIVE: Final = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Who is at the other end of a connection."""

    ae_title: str
    address: str
    """``host:port``."""
    fingerprint: str
    """:func:`~dicom_node.grants.fingerprint` of the certificate that it has just shown;
    empty without TLS."""


class Sender(Protocol):
    """What sends instances to one destination."""

    destination: Destination

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        """Return who would be sent an instance of that class and transfer syntax."""
        ...


def head_of(file: Stored) -> Head:
    """Return what a file says before its data set begins.

    Raises:
        UnaskedError: It is no DICOM file.
        SendInterruptedError: It cannot be read now.
    """
    try:
        return read_head(file)
    except OSError as error:
        raise SendInterruptedError(
            f"{file} cannot be read: {error.strerror}"
        ) from error
    except FilterError as error:
        raise UnaskedError(str(error), hint=error.hint) from error


def offered(
    destination: Destination, syntax: str, able: Collection[UID] = COMPRESSED
) -> list[UID]:
    """Return what an object may be sent in, best first.

    Args:
        destination: To where.
        syntax: What it is in.
        able: The compressed ones that it may be put into.
    """
    wanted = [
        uid.UID(syntax) if choice is Syntax.AS_IS else UIDS[choice]
        for choice in destination.transfer_syntaxes
    ]
    possible = {uid.UID(syntax), *_NATIVE, *able}
    return [to for to in dict.fromkeys(wanted) if to in possible]


def abilities(file: Stored, syntax: str) -> tuple[UID, ...]:
    """Return the compressed syntaxes that an object may be put into.

    Of one that is compressed in another way, this is known once it is decompressed.

    Args:
        file: Where it lies.
        syntax: What it is in.
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


def ready(
    file: Stored,
    syntax: str,
    accepted: Sequence[UID],
    decode: Decode,
    named: str,
    computing: Computing = nullcontext,
) -> Stored:
    """Return the file to be sent: ``file``, or a copy in another syntax beside it.

    Args:
        file: As it lies in the spool.
        syntax: What it is in.
        accepted: What its receiver takes, best first; at least one.
        decode: Calls the codecs, for what came compressed.
        named: The destination, for people.
        computing: Surrounds what is done if it has to be put into another.

    Raises:
        UnaskedError: It cannot be put into any that the receiver takes.
        SendInterruptedError: A file cannot be read or written now.
    """
    if accepted[0] == syntax:
        return file
    with computing():
        return _put(file, syntax, accepted, decode, named)


def _put(
    file: Stored, syntax: str, accepted: Sequence[UID], decode: Decode, named: str
) -> Stored:
    """Return a copy in the first syntax that it can be put into; see :func:`ready`."""
    try:
        instance = OpenInstance.read(file, Limits())
    except FilterError as error:
        raise UnaskedError(str(error), hint=error.hint) from error
    except OSError as error:
        raise SendInterruptedError(
            f"{file} cannot be read: {error.strerror}"
        ) from error
    last: FilterError | None = None
    for to in accepted:
        if to == syntax:
            return file
        try:
            made = put_into(instance, to, decode)
        except FilterError as error:
            last = error
            continue
        return _written(file, made)
    raise UnaskedError(
        f"{named} takes no transfer syntax that the instance can be put into: {last}",
        hint=last.hint if last else "",
    ) from last


def untaken(
    named: str, sop_class: str, syntax: str, *, was_asked: bool
) -> SendRefusedError:
    """Return what is wrong where a receiver takes an object in no form that it can have.

    Args:
        named: The destination, for people.
        sop_class: Of the object.
        syntax: What it is in.
        was_asked: Whether the receiver has just said so.
    """
    error = SendRefusedError if was_asked else UnaskedError
    return error(
        f"{named} takes no {uid.UID(sop_class).name} in "
        f"{uid.UID(syntax).name}, nor in a lossless syntax that it may be put into",
        hint="Add the SOP class and a lossless syntax at the receiver or to "
        "transfer_syntaxes, or another destination. Nothing is made lossy.",
    )


def _written(file: Stored, instance: OpenInstance) -> Stored:
    """Write a copy beside ``file``, for its owner only; half of it is not left behind.

    Under a name of its own: another route may send the same file at the same time.
    """
    descriptor, name = -1, ""
    try:
        if not isinstance(file, Path):
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
