"""Take an instance over: from here on it is this node's to lose, and it does not.

The same bytes are taken over once. Other bytes under the UID of an instance that is on
its way, or was sent a while ago, are kept apart for a person, and overwrite nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeGuard

from dicom_node.bell import ring
from dicom_node.elements import Limits
from dicom_node.errors import (
    ClashError,
    NotAsAnnouncedError,
    NotGrantedError,
    UnsureError,
)
from dicom_node.instance import OpenInstance
from dicom_node.mapped import IN_MEMORY, chunks
from dicom_node.outline import outline
from dicom_node.owing import owed
from dicom_node.queue.arrival import CLASHES, Arrival, Taken
from dicom_node.route import Facts, choose
from dicom_node.sealed_file import SealedFile

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from dicom_node.config import Config
    from dicom_node.instance import Identity
    from dicom_node.mapped import Buffer
    from dicom_node.pseudonyms import Patients
    from dicom_node.queue.sql_queue import SqlQueue
    from dicom_node.room import Room
    from dicom_node.scp import Received
    from dicom_node.sealed_file import Stored
    from dicom_node.spool import Spool


def accept(
    received: Received,
    *,
    config: Config,
    spool: Spool,
    queue: SqlQueue,
    lock: threading.Lock,
    room: Room,
    clock: Callable[[], datetime],
    patients: Patients,
    bells: Sequence[Path] = (),
) -> None:
    """Make an instance durable, and owe it to its routes.

    The order is the promise: the file, its name, the queue's commit, and only then does
    the caller answer.

    Args:
        received: It, in a file.
        config: Which routes there are.
        spool: Where its file is kept.
        queue: What owes it.
        lock: Of the queue.
        room: Of the disk.
        clock: Returns the time, aware.
        patients: How the audit is to call whose it is.
        bells: Wake whoever works off the queue.

    Raises:
        MalformedObjectError: It is no DICOM object, is cut short, or exceeds a limit.
        NotAsAnnouncedError: It is another object than the command said.
        NotGrantedError: No route is for it.
        ClashError: Another instance has its UID: it is quarantined.
        SpoolError: It could not be made durable, or the disk is all but full.
    """
    room.require()
    file = spool.coming(received.part)
    instance = _opened(file, received.content)
    identity = instance.identity()
    _require_as_announced(instance, identity)
    facts = Facts(
        identity=identity,
        attributes=instance.attributes(*config.matched_tags),
        calling=received.calling_ae_title,
        called=received.called_ae_title,
        requested=received.priority,
    )
    routes = choose(config.routes, facts)
    if not routes:
        raise NotGrantedError(
            f"no route is for {_modality(identity)} from "
            f"{received.calling_ae_title} to {received.called_ae_title}"
        )
    digest = _digest(instance, file)
    if received.settled is not None:
        received.settled()
    name = spool.take(received.part, is_synced=received.settled is not None)
    taken, moment = Taken.KNOWN, clock()
    try:
        with lock:
            taken = queue.add(
                Arrival(
                    identity.sop_instance_uid,
                    digest,
                    name,
                    identity.study_instance_uid,
                    received.calling_ae_title,
                    identity.sop_class_uid,
                    patients.of(instance),
                ),
                owed(routes, facts),
                moment,
                moment - config.storage.remember_sent,
                spool.holds,
            )
    except UnsureError:
        # It may be owed: what nobody is owed is swept later.
        taken = Taken.OWED
        raise
    finally:
        if not taken.needs_file:
            spool.delete([name])
    ring(bells)
    if taken in {Taken.CLASHING, Taken.CLASHING_AGAIN}:
        raise ClashError(CLASHES)


def _modality(identity: Identity) -> str:
    """Return a modality, if it looks like one: what else stands there is not told."""
    modality = identity.modality
    return modality if modality.isalpha() and len(modality) <= 8 else "this"


def _require_as_announced(instance: OpenInstance, identity: Identity) -> None:
    """Return if the head of the file, which is of the command, names the same object.

    What is routed, marked and remembered is what the data set says; what is answered,
    and what the receiver of a passing object is told, is what the command said.
    """
    head = instance.file.meta
    for said, is_so in (
        (head.get("MediaStorageSOPClassUID"), identity.sop_class_uid),
        (head.get("MediaStorageSOPInstanceUID"), identity.sop_instance_uid),
    ):
        if str(said or "") != is_so:
            raise NotAsAnnouncedError(
                "the command and the data set name different objects",
                hint="PS3.7 9.1.1.1 wants the same SOP class and instance in both.",
            )


def _opened(file: Stored, content: bytes | None) -> OpenInstance:
    """Return an instance to be looked at; of one too large to decrypt, its outline."""
    if content is not None:
        return OpenInstance.of(content, Limits())
    if _is_outlined(file):
        return OpenInstance.of(outline(file), Limits())
    return OpenInstance.read(file, Limits())


def _is_outlined(file: Stored) -> TypeGuard[SealedFile]:
    return isinstance(file, SealedFile) and file.size >= IN_MEMORY


def _digest(instance: OpenInstance, file: Stored) -> bytes:
    """Return what tells the same bytes from others, whoever wrote the file's head."""
    digest = hashlib.sha256(f"{instance.file.transfer_syntax}\n".encode())
    dataset = instance.file.dataset
    if _is_outlined(file):
        pieces: Iterator[Buffer] = file.pieces(file.size - len(dataset))
    else:
        pieces = chunks(dataset)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
