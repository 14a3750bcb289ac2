"""Empty a node: what it still owes goes to another, which then owes it.

The node that owes it is stopped while it packs, and does not start again before the other
has said that it has all of it. So nothing is sent by both, unless somebody takes a
hand-over back that was taken already; and whatever is interrupted is done again: packing
from the start, taking where it stopped.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dicom_node.audit import Event
from dicom_node.draining import Drain, Phase
from dicom_node.durable import make_folder, stream_durably, write_durably
from dicom_node.errors import ConfigError, LedgerError, SpoiledFileError, SpoolError
from dicom_node.handover import Epochs, Packing, receipt, receipt_in, unpack
from dicom_node.incoming import IncomingFile
from dicom_node.ledger_merge import copy, merge
from dicom_node.listings import Entries, Sent
from dicom_node.mapped import CHUNK
from dicom_node.queue.handing import Handing, OpenInstance, OpenJob
from dicom_node.queue.job import JobState
from dicom_node.room import Room
from dicom_node.supervising import locked
from dicom_node.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from dicom_node.codestreams import Codestreams
    from dicom_node.config import Config
    from dicom_node.handover import Unpacked
    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger_merge import Merged
    from dicom_node.sealed_file import Stored
    from dicom_node.spool import Spool
    from dicom_node.state import State

PACKED: Final = "drain-packed.json"
"""In the state folder: what was packed last, by numbers."""
NODE_LOCKS: Final = ("node", "receivers", "worker", "passer", "committer", "follower")
"""Held by processes of a node that runs."""


class Left(NamedTuple):
    """What a node still owes."""

    instances: int
    jobs: int
    by_state: Mapping[str, int]
    requests: int
    """Of peers that asked for storage commitment and were not told."""


class Given(NamedTuple):
    """What was packed."""

    instances: int
    jobs: int
    requests: int
    lost: tuple[str, ...]
    """SOP Instance UIDs whose file cannot be read: they stay here. What was made of one
    is no loss while that can be read, since it is made again."""


class Settled(NamedTuple):
    """What came of a receipt."""

    jobs: int
    """That this node owes no more."""
    left: Left
    """What it owes still: that which could not be packed."""


class Got(NamedTuple):
    """What was taken, from the first to the last try."""

    instances: int
    added: int
    known: int
    """Jobs that were here already, or were done here."""
    records: int
    differing: int
    """Originals that went out with two marks."""


def left(state: State, config: Config) -> Left:
    """Return what a node still owes."""
    with closing(_handing(state, config)) as handing:
        owed, requests = handing.owed(), handing.requests()
    counts: dict[str, int] = {}
    for one in owed:
        for job in one.jobs:
            name = str(job.values["state"])
            counts[name] = counts.get(name, 0) + 1
    return Left(len(owed), sum(counts.values()), counts, len(requests))


def pack(
    state: State, config: Config, keyring: Keyring, to: str, folder: Path
) -> Given:
    """Put all that a node still owes into a folder, sealed to another node.

    Args:
        state: Of the node that is being emptied, and does not run.
        config: Its own.
        keyring: Likewise.
        to: Name of the node that is to have it.
        folder: New, or of an earlier try.

    Raises:
        ConfigError: The node runs, is not being emptied, or was emptied.
        SpoolError: Something cannot be read or written: nothing has changed.
    """
    drain = _drain(state, Phase.SENDING, Phase.HANDING)
    if drain.to not in {"", to}:
        raise ConfigError(
            f"this node's hand-over is for {drain.to}",
            hint="miadmark drain cancel, if that one has not taken it.",
        )
    recipient = keyring.nodes.others().get(to)
    if recipient is None:
        known = ", ".join(keyring.nodes.others()) or "none"
        raise ConfigError(f"there is no other node {to!r}", hint=f"There are: {known}.")
    with _stopped(state):
        replace(drain, phase=Phase.HANDING, to=to).keep(state.folder)
        spool = state.spool(keyring.spool, encrypts=config.storage.encrypt)
        packing = Packing(folder, drain.handover)
        with closing(_handing(state, config)) as handing:
            owed, requests = handing.owed(), handing.requests()
        instances: list[dict[str, Any]] = []
        jobs: list[int] = []
        lost: list[str] = []
        for one in owed:
            try:
                one, files = _packed_files(one, packing, spool)  # noqa: PLW2901
            except (FileNotFoundError, SpoiledFileError):
                lost.append(str(one.values["sop_instance_uid"]))
                continue
            instances.append(_told(one, files))
            jobs += [job.id for job in one.jobs]
        values = {
            "pack": os.urandom(16).hex(),
            "instances": instances,
            "requests": requests,
            "listings": _listed(state, keyring),
            "ledger": _packed_ledger(state, packing),
            "codestreams": _packed_codestreams(state, packing),
            "terms": Terms.of(config).told(),
        }
        packed: dict[str, Any] = {"pack": values["pack"], "instances": len(instances)}
        packed |= {"jobs": jobs, "requests": requests}
        write_durably(state.folder / PACKED, json.dumps(packed).encode("utf-8"))
        packing.finish(values, keyring, to, recipient)
    return Given(len(instances), len(jobs), len(requests), tuple(lost))


def _packed_files(
    one: OpenInstance, packing: Packing, spool: Spool
) -> tuple[OpenInstance, dict[str, str]]:
    """Pack the files of an instance; return it, and their names in the hand-over.

    What was made of it and cannot be read is left out, to be made again there.

    Raises:
        FileNotFoundError: A file is gone that cannot be made again.
        SpoiledFileError: Likewise, one is not as it was written.
    """
    own, files, unread = one.values["file"], dict[str, str](), set[str]()
    for name in one.files:
        try:
            files[name] = packing.add(_read(spool.file(name)))
        except (FileNotFoundError, SpoiledFileError):
            if own is None or name == own:
                raise
            unread.add(name)
    again = {"filtered": None, "purpose": None}
    jobs = tuple(
        job._replace(values=job.values | again)
        if job.values["filtered"] in unread
        else job
        for job in one.jobs
    )
    return one._replace(jobs=jobs), files


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
    state.commitments().close()  # or its tables may not be there
    with ExitStack() as stack:
        shared = locked(state.folder / "receivers.lock", is_shared=True)
        if shared is None:
            raise SpoolError("the node is just starting", hint="Try again.")
        stack.enter_context(shared)  # nobody sweeps meanwhile
        room.require()
        merged = _merged(state, unpacked)
        _take_codestreams(state.codestreams(), unpacked)
        handing = stack.enter_context(closing(_handing(state, config)))
        for one in values["instances"]:
            if not handing.has(unpacked.handover, one["part"]):
                room.require()
                moment = state.clock()
                _take_instance(handing, spool, config, keyring, unpacked, one, moment)
        if not handing.has(unpacked.handover, 0):
            for request in values["requests"]:
                handing.take_request(request, state.clock())
            _take_listed(state, keyring, values["listings"])
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


def finish(state: State, config: Config, keyring: Keyring, content: bytes) -> Settled:
    """Owe nothing more of what another node has; return what that was, and the rest.

    Args:
        state: Of the node that was packed.
        config: Its own.
        keyring: Likewise.
        content: The other node's receipt, for all that was packed last.

    Raises:
        ConfigError: The node runs, or there is no hand-over.
        KeyFolderError: The receipt is no node's of this site.
        SpoolError: It is for something else, or for less.
    """
    drain = _drain(state, Phase.HANDING, Phase.HANDED)
    said = receipt_in(content, keyring)
    if (said["handover"], said["node"]) != (drain.handover, drain.to):
        raise SpoolError(f"the receipt is not {drain.to}'s for this hand-over")
    with _stopped(state):
        packed = json.loads((state.folder / PACKED).read_bytes())
        if said["pack"] != packed["pack"]:
            raise SpoolError(
                "the receipt is for what was packed before",
                hint=f"Have {drain.to} take the folder once more: miadmark drain take.",
            )
        spool = state.spool(keyring.spool, encrypts=config.storage.encrypt)
        reason = f"handed over to {drain.to} ({drain.handover})"
        with closing(_handing(state, config)) as handing:
            count = handing.give_away(packed["jobs"], packed["requests"], reason)
        with closing(state.queue(config.passed)) as queue:
            spool.delete(queue.forget_sent())
        with closing(state.listings(keyring)) as listings:
            listings.keep_only([])
        state.audit(keyring).add(
            Event.ACTED,
            did="handed over",
            node=drain.to,
            handover=drain.handover,
            instances=packed["instances"],
            jobs=count,
        )
        rest = left(state, config)
        stays = rest.instances
        replace(drain, phase=Phase.HANDED, stays=stays).keep(state.folder)
    return Settled(count, rest)


def _handing(state: State, config: Config) -> Handing:
    state.commitments().close()  # or its tables may not be there
    return Handing(state.folder / "queue.sqlite", config.passed)


def _drain(state: State, *phases: Phase) -> Drain:
    drain = Drain.of(state.folder)
    if drain is None or drain.phase not in phases:
        raise ConfigError(
            "this node is not being emptied"
            if drain is None
            else f"this node is {drain.phase.value} already",
            hint="miadmark drain start",
        )
    return drain


@contextmanager
def _stopped(state: State) -> Iterator[None]:
    """Keep a node from running until the end of a block.

    Raises:
        ConfigError: It runs.
    """
    with ExitStack() as stack:
        for name in NODE_LOCKS:
            held = locked(state.folder / f"{name}.lock")
            if held is None:
                raise ConfigError(
                    f"the node runs on {state.folder} ({name})",
                    hint="It has sent what it can: stop it, then try again.",
                )
            stack.enter_context(held)
        yield


def _told(one: OpenInstance, files: Mapping[str, str]) -> dict[str, Any]:
    """Return an instance in words of JSON; the inverse of :func:`_instance`."""
    values = one.values | {
        "digest": b64encode(one.values["digest"]).decode("ascii"),
        "file": files.get(one.values["file"]),
    }
    jobs = [
        {
            "id": job.id,
            "values": job.values | {"filtered": files.get(job.values["filtered"])},
            "promise": job.promise,
        }
        for job in one.jobs
    ]
    return {"part": one.id, "values": values, "jobs": jobs}


def _instance(told: Mapping[str, Any], files: Mapping[str, str]) -> OpenInstance:
    values = told["values"] | {
        "digest": b64decode(told["values"]["digest"]),
        "file": files.get(told["values"]["file"]),
    }
    jobs = tuple(
        OpenJob(
            job["id"],
            job["values"] | {"filtered": files.get(job["values"]["filtered"])},
            job["promise"],
        )
        for job in told["jobs"]
    )
    return OpenInstance(told["part"], values, jobs)


def _take_instance(
    handing: Handing,
    spool: Spool,
    config: Config,
    keyring: Keyring,
    unpacked: Unpacked,
    told: Mapping[str, Any],
    moment: datetime,
) -> None:
    """Owe one instance; its files are durable before it is owed."""
    sealed_with = keyring.spool if config.storage.encrypt else None
    names = [told["values"]["file"], *(j["values"]["filtered"] for j in told["jobs"])]
    wanted = [name for name in dict.fromkeys(names) if name]
    files: dict[str, str] = {}
    try:
        for name in wanted:
            coming = IncomingFile(spool.incoming, sealed_with)
            try:
                for piece in _read(unpacked.file(name)):
                    coming.write(piece)
                coming.finish()
            finally:
                coming.close()
            files[name] = spool.take(Path(coming.name), is_synced=True)
        one = _on_our_terms(_instance(told, files), config, unpacked)
        since = moment - config.storage.remember_sent
        handing.take(unpacked.handover, told["part"], one, moment, since)
    finally:
        spool.delete([name for name in files.values() if not handing.needs(name)])


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


def _read(file: Stored) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(CHUNK):
            yield piece


def _packed_ledger(state: State, packing: Packing) -> str:
    """Pack what the ledger remembers, all of it: marks must not be forgotten."""
    part = state.folder / "handover-ledger.part"
    part.unlink(missing_ok=True)
    try:
        copy(state.folder / "ledger.sqlite", part)
        return packing.add(_read(part))
    finally:
        part.unlink(missing_ok=True)


def _merged(state: State, unpacked: Unpacked) -> Merged:
    part = state.folder / "handover-ledger.part"
    part.unlink(missing_ok=True)
    try:
        stream_durably(part, _read(unpacked.file(unpacked.values["ledger"])))
        return merge(state.folder / "ledger.sqlite", part)
    finally:
        for file in state.folder.glob(f"{part.name}*"):
            file.unlink()


def _listed(state: State, keyring: Keyring) -> dict[str, Any]:
    """Return what is still to be listed; the inverse of :func:`_take_listed`."""
    with closing(state.listings(keyring)) as listings:
        entries = listings.entries()
    return {
        "sent": [
            [*one[:3], b64encode(one.listed).decode("ascii"), one.at]
            for one in entries.sent
        ],
        "lists": [digest.hex() for digest in entries.lists],
    }


def _take_listed(state: State, keyring: Keyring, told: Mapping[str, Any]) -> None:
    sent = [Sent(*row) for row in told["sent"]]
    sent = [one._replace(listed=b64decode(one.listed)) for one in sent]
    entries = Entries(sent, [bytes.fromhex(digest) for digest in told["lists"]])
    with closing(state.listings(keyring)) as listings:
        listings.take(entries)


def _packed_codestreams(state: State, packing: Packing) -> dict[str, str]:
    folder = state.codestreams().folder
    if not folder.is_dir():
        return {}
    return {
        file.name: packing.add(_read(file))
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.name.startswith(".")
    }


def _take_codestreams(codestreams: Codestreams, unpacked: Unpacked) -> None:
    make_folder(codestreams.folder)
    for name, packed in unpacked.values["codestreams"].items():
        target = codestreams.folder / name
        if target.parent != codestreams.folder or name.startswith("."):
            raise SpoolError(f"a hand-over names a file {name!r}")
        if not target.exists():
            stream_durably(target, _read(unpacked.file(packed)))


def _require_epochs(epochs: Epochs, keyring: Keyring) -> None:
    """Return if this node opens the records that come.

    Raises:
        LedgerError: Some are of an epoch that it does not have, or has no more.
    """
    keyring.refresh()
    mine = Epochs(keyring.ring.least_epoch, keyring.epoch().version)
    if mine.least != epochs.least or mine.newest < epochs.newest:
        raise LedgerError(
            f"the records are of epochs {epochs.least} to {epochs.newest}, and this node "
            f"has {mine.least} to {mine.newest}",
            hint="Have both nodes take the newest charter (miadmark nodes take), then "
            "pack again.",
        )
