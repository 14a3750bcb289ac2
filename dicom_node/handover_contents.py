"""What a node owes and remembers, as it is packed there and taken here, piece by piece.

Each is a pair of functions: what the one has packed, the other takes. An instance is owed
once its files are durable, under names that they have here; what is remembered is added
to what is remembered here. Each may be taken again, if something came between.

In which order it is done, and whether it may be, is not known here; nor how a folder is
sealed (:mod:`dicom_node.handover`).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.durable import make_folder, stream_durably
from dicom_node.errors import SpoiledFileError, SpoolError
from dicom_node.incoming import IncomingFile
from dicom_node.ledger_merge import copy, merge
from dicom_node.listings import Entries, Sent
from dicom_node.mapped import CHUNK
from dicom_node.queue.handing import OpenInstance, OpenJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from dicom_node.codestreams import Codestreams
    from dicom_node.handover import Packing, Unpacked
    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger_merge import Merged
    from dicom_node.queue.handing import Handing
    from dicom_node.sealed_file import Stored
    from dicom_node.spool import Spool
    from dicom_node.spool_keys import SpoolKeys
    from dicom_node.state import State


def packed_instance(
    one: OpenInstance, packing: Packing, spool: Spool
) -> dict[str, Any]:
    """Pack the files of an instance; return it in words of JSON.

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
    return words_of(one._replace(jobs=jobs), files)


def take_instance(
    told: Mapping[str, Any],
    unpacked: Unpacked,
    handing: Handing,
    spool: Spool,
    *,
    sealed_with: SpoolKeys | None,
    judged: Callable[[OpenInstance], OpenInstance],
    moment: datetime,
    since: datetime,
) -> None:
    """Owe one instance; its files are durable before it is owed.

    Args:
        told: What was packed.
        unpacked: All of the hand-over.
        handing: Where it is owed.
        spool: Where its files go.
        sealed_with: What they are encrypted with; None for not at all.
        judged: Returns it with the jobs that wait for a person.
        moment: The time, aware.
        since: Since when it is remembered what was sent.
    """
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
        one = judged(instance_in(told, files))
        handing.take(unpacked.handover, told["part"], one, moment, since)
    finally:
        spool.delete([name for name in files.values() if not handing.needs(name)])


def words_of(one: OpenInstance, files: Mapping[str, str]) -> dict[str, Any]:
    """Return an instance in words of JSON; the inverse of :func:`instance_in`.

    Args:
        one: Which.
        files: What its files are called where they are packed; none of another.
    """
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


def instance_in(told: Mapping[str, Any], files: Mapping[str, str]) -> OpenInstance:
    """Return the instance that :func:`words_of` has told.

    Args:
        told: What that has returned.
        files: What its files are called here, by what they are called there.
    """
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


def packed_ledger(state: State, packing: Packing) -> str:
    """Pack what the ledger remembers, all of it: marks must not be forgotten."""
    part = state.folder / "handover-ledger.part"
    part.unlink(missing_ok=True)
    try:
        copy(state.folder / "ledger.sqlite", part)
        return packing.add(_read(part))
    finally:
        part.unlink(missing_ok=True)


def take_ledger(state: State, unpacked: Unpacked) -> Merged:
    """Remember what the other's ledger does; return what was not known here."""
    part = state.folder / "handover-ledger.part"
    part.unlink(missing_ok=True)
    try:
        stream_durably(part, _read(unpacked.file(unpacked.values["ledger"])))
        return merge(state.folder / "ledger.sqlite", part)
    finally:
        for file in state.folder.glob(f"{part.name}*"):
            file.unlink()


def packed_codestreams(codestreams: Codestreams, packing: Packing) -> dict[str, str]:
    """Pack the bytes that compressed originals came in; return their files' names."""
    if not codestreams.folder.is_dir():
        return {}
    return {
        file.name: packing.add(_read(file))
        for file in sorted(codestreams.folder.iterdir())
        if file.is_file() and not file.name.startswith(".")
    }


def take_codestreams(codestreams: Codestreams, unpacked: Unpacked) -> None:
    """Keep the bytes that the other's compressed originals came in."""
    make_folder(codestreams.folder)
    for name, packed in unpacked.values["codestreams"].items():
        target = codestreams.folder / name
        if target.parent != codestreams.folder or name.startswith("."):
            raise SpoolError(f"a hand-over names a file {name!r}")
        if not target.exists():
            stream_durably(target, _read(unpacked.file(packed)))


def packed_listings(state: State, keyring: Keyring) -> dict[str, Any]:
    """Return what is still to be listed; the inverse of :func:`take_listings`."""
    with closing(state.listings(keyring)) as listings:
        entries = listings.entries()
    return {
        "sent": [
            [*one[:3], b64encode(one.listed).decode("ascii"), one.at]
            for one in entries.sent
        ],
        "lists": [digest.hex() for digest in entries.lists],
    }


def take_listings(state: State, keyring: Keyring, told: Mapping[str, Any]) -> None:
    """List, when it is due, what the other had still to list."""
    sent = [Sent(*row) for row in told["sent"]]
    sent = [one._replace(listed=b64decode(one.listed)) for one in sent]
    entries = Entries(sent, [bytes.fromhex(digest) for digest in told["lists"]])
    with closing(state.listings(keyring)) as listings:
        listings.take(entries)


def _read(file: Stored) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(CHUNK):
            yield piece
