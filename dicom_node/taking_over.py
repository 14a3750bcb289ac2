"""Take over what another node has packed: from then on it is owed here.

It is taken once, however often that is tried, and what is interrupted goes on where it
stopped. What this node would do otherwise than the other, or send elsewhere, waits for a
person. The receipt says that all of it is here: the other may forget it.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_node.audit import Event
from dicom_node.errors import LedgerError, SpoolError
from dicom_node.handover import Epochs, receipt, unpack
from dicom_node.handover_contents import (
    take_codestreams,
    take_instance,
    take_ledger,
    take_listings,
)
from dicom_node.queue.job import JobState
from dicom_node.room import Room
from dicom_node.supervising import locked
from dicom_node.terms import Terms

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_node.config import Config
    from dicom_node.handover import Unpacked
    from dicom_node.keys.keyring import Keyring
    from dicom_node.queue.handing import OpenInstance
    from dicom_node.state import State


class Got(NamedTuple):
    """What was taken, from the first to the last try."""

    instances: int
    added: int
    known: int
    """Jobs that were here already, or were done here."""
    records: int
    differing: int
    """Originals that went out with two marks."""


def take(
    state: State, config: Config, keyring: Keyring, folder: Path
) -> tuple[Got, bytes]:
    """Owe what another node has packed; return what came of it, and a receipt.

    What was taken before is not taken again. The node may run meanwhile. What it would
    do otherwise than the other, or send elsewhere, waits for a person: quarantined or
    held, with the reason (:mod:`dicom_node.terms`).

    Args:
        state: Of the node that takes it.
        config: Its own: what is owed to routes that it does not have is held there.
        keyring: Likewise.
        folder: What was packed.

    Raises:
        KeyFolderError: It is not for this node.
        LedgerError: Its records are of epochs that this node does not have.
        SpoolError: Something cannot be read or written: try again.
    """
    unpacked = unpack(folder, keyring, keyring.nodes.identity(state.clock()))
    _require_epochs(unpacked.epochs, keyring)
    spool = state.spool(keyring.spool, encrypts=config.storage.encrypt)
    room, values = Room(state.folder, config.storage), unpacked.values
    with ExitStack() as stack:
        shared = locked(state.folder / "receivers.lock", is_shared=True)
        if shared is None:
            raise SpoolError("the node is just starting", hint="Try again.")
        stack.enter_context(shared)  # nobody sweeps meanwhile
        room.require()
        merged = take_ledger(state, unpacked)
        take_codestreams(state.codestreams(), unpacked)
        handing = stack.enter_context(closing(state.handing(config.passed)))
        for one in values["instances"]:
            if not handing.has(unpacked.handover, one["part"]):
                room.require()
                moment = state.clock()
                take_instance(
                    one,
                    unpacked,
                    handing,
                    spool,
                    sealed_with=keyring.spool if config.storage.encrypt else None,
                    judged=partial(_on_our_terms, config=config, unpacked=unpacked),
                    moment=moment,
                    since=moment - config.storage.remember_sent,
                )
        if not handing.has(unpacked.handover, 0):
            for request in values["requests"]:
                handing.take_request(request, state.clock())
            take_listings(state, keyring, values["listings"])
            handing.note(unpacked.handover)
        parts, took = handing.taken(unpacked.handover)
    got = Got(parts, took.added, took.known, merged.records, merged.differing)
    said: dict[str, Any] = {"handover": unpacked.handover, "node": keyring.nodes.name}
    said |= {"pack": values["pack"], "jobs": took.added + took.known}
    state.audit(keyring).add(
        Event.ACTED,
        did="took a hand-over",
        node=unpacked.came_from,
        handover=unpacked.handover,
        **got._asdict(),
    )
    return got, receipt(said, keyring)


def _on_our_terms(
    one: OpenInstance, config: Config, unpacked: Unpacked
) -> OpenInstance:
    """Return an instance whose jobs wait for a person where the nodes differ."""
    theirs, ours = Terms.read(unpacked.values["terms"]), Terms.of(config)
    jobs = []
    for job in one.jobs:
        route, destination = job.values["route"], job.values["destination"]
        differs = theirs.objection(ours, unpacked.came_from, route, destination)
        if differs is None:
            jobs.append(job)
            continue
        # One that was sent, and may be refused yet, would be sent again.
        was, before = job.values["state"], job.values["reason"]
        stays = was == JobState.QUARANTINED
        why = {
            "state": was if stays else differs.state.value,
            "reason": f"{differs.reason}; before: {before}"
            if before
            else differs.reason,
        }
        jobs.append(job._replace(values=job.values | why, promise=None))
    return one._replace(jobs=tuple(jobs))


def _require_epochs(epochs: Epochs, keyring: Keyring) -> None:
    """Return if this node opens the records that come.

    Raises:
        LedgerError: Some are of an epoch that it does not have, or has no more.
    """
    keyring.refresh()
    mine = Epochs(keyring.ring.least_epoch, keyring.epochs.newest().version)
    if mine.least != epochs.least or mine.newest < epochs.newest:
        raise LedgerError(
            f"the records are of epochs {epochs.least} to {epochs.newest}, and this node "
            f"has {mine.least} to {mine.newest}",
            hint="Have both nodes take the newest charter (miadmark nodes take), then "
            "pack again.",
        )
