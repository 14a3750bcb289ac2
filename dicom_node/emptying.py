"""Empty a node: what it still owes goes to another, which then owes it.

The node that owes it is stopped while it packs, and does not start again before the other
has said that it has all of it. So nothing is sent by both, unless somebody takes a
hand-over back that was taken already; and packing that is interrupted begins again.

What the other does with it is not known here (:mod:`dicom_node.taking_over`).
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dicom_node.audit import Event
from dicom_node.draining import Drain, Phase
from dicom_node.durable import write_durably
from dicom_node.errors import ConfigError, SpoiledFileError, SpoolError
from dicom_node.handover import Packing, receipt_in
from dicom_node.handover_contents import (
    packed_codestreams,
    packed_instance,
    packed_ledger,
    packed_listings,
)
from dicom_node.supervising import locked
from dicom_node.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dicom_node.config import Config
    from dicom_node.keys.keyring import Keyring
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


def left(state: State, config: Config) -> Left:
    """Return what a node still owes."""
    with closing(state.handing(config.passed)) as handing:
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
        with closing(state.handing(config.passed)) as handing:
            owed, requests = handing.owed(), handing.requests()
        instances: list[dict[str, Any]] = []
        jobs: list[int] = []
        lost: list[str] = []
        for one in owed:
            try:
                instances.append(packed_instance(one, packing, spool))
            except (FileNotFoundError, SpoiledFileError):
                lost.append(str(one.values["sop_instance_uid"]))
                continue
            jobs += [job.id for job in one.jobs]
        values = {
            "pack": os.urandom(16).hex(),
            "instances": instances,
            "requests": requests,
            "listings": packed_listings(state, keyring),
            "ledger": packed_ledger(state, packing),
            "codestreams": packed_codestreams(state.codestreams(), packing),
            "terms": Terms.of(config).told(),
        }
        packed: dict[str, Any] = {"pack": values["pack"], "instances": len(instances)}
        packed |= {"jobs": jobs, "requests": requests}
        write_durably(state.folder / PACKED, json.dumps(packed).encode("utf-8"))
        packing.finish(values, keyring, to, recipient)
    return Given(len(instances), len(jobs), len(requests), tuple(lost))


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
        with closing(state.handing(config.passed)) as handing:
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
