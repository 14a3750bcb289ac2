"""What a back-fill does to each object: mark it into a target, or hand it to a node.

Options become a target, what is done on the way there, and where what it takes is kept.
Which objects there are, and which of them are done, is not known here.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.commands.protecting import protecting
from dicom_node.commands.state import state_in
from dicom_node.errors import BackfillError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dicom_node.backfill.filling import Compare, Sample, Work
    from dicom_node.backfill.target import Target
    from dicom_node.config import Cluster
    from dicom_node.state import State

WORKERS: Final = 8
"""Of a cluster, unless somebody says how many."""
_MOST_WAITING: Final = 1000
"""Objects in a hatch, above which it is left alone until the node has taken some in."""


class Plan(NamedTuple):
    """What is done, and where what it takes is kept."""

    target: Target
    work: Work
    compare: Compare
    sample: Sample
    hindrance: Callable[[], str]
    ahead: int
    """How many batches others work on meanwhile."""


@contextmanager
def plan_of(options: argparse.Namespace, source: str) -> Iterator[tuple[Plan, Path]]:
    """Yield what is to be done, and a folder for what lies there meanwhile."""
    if options.node is not None:
        yield _handing(options.node, options.hatch, source)
        return
    from dicom_node.backfill.comparing import require_restorable
    from dicom_node.backfill.filling import Sample
    from dicom_node.backfill.places import target_at
    from dicom_node.codec_process import CodecProcess
    from dicom_node.state import opening_with

    target = target_at(options.out)
    cluster = _cluster(options)
    state = state_in(options.state)
    keyring = state.keys()
    seed = options.seed.encode() or keyring.derive(b"backfill sample")
    with (
        protecting(options, state, keyring, cluster=cluster) as protect,
        state.ledger() as ledger,
        CodecProcess() as decode,
    ):
        compare = partial(
            require_restorable, opening=opening_with(keyring, ledger), decode=decode
        )
        sample = Sample(options.verify, seed)
        ahead = 0 if cluster is None else cluster.most
        plan = Plan(target, protect, compare, sample, str, ahead)
        yield plan, _folder(state, source, target)


def _cluster(options: argparse.Namespace) -> Cluster | None:
    """Return where marks are looked for; None for here."""
    from dicom_node.config import Cluster

    if not options.ray:
        return None
    most = WORKERS if options.workers is None else options.workers
    return Cluster(ray=options.ray, most=most, gpus=options.gpus)


def _handing(node: Path, hatch: str, source: str) -> tuple[Plan, Path]:
    from dicom_node.backfill.filling import Sample, hand_over
    from dicom_node.backfill.target import HatchTarget
    from dicom_node.config_file import content_of, read
    from dicom_node.room import Room
    from dicom_node.state import State

    config = read(content_of(node), node)
    if not config.hatches:
        raise BackfillError(
            f"{node} has no [[hatch]]",
            hint="It is the folder through which a program on the node's machine hands "
            "objects in; routes see its two titles.",
        )
    hatches = [one for one in config.hatches if hatch in {"", one.name}]
    if len(hatches) != 1:
        names = ", ".join(one.name for one in config.hatches)
        raise BackfillError(
            f"{node} has no hatch {hatch!r}"
            if hatch
            else f"{node} has several hatches",
            hint=f"--hatch says which: {names}.",
        )
    target = HatchTarget(hatches[0])
    state = State(config.node.state)
    state.audit_end()  # makes the folder, for its owner only
    room = Room(state.folder, config.storage)

    def hindrance() -> str:
        if target.waiting() >= _MOST_WAITING:
            return "waits for the node to take in what was handed in"
        return room.lack() and f"waits for room: {room.lack()}"

    plan = Plan(target, hand_over, lambda *_: None, Sample(0.0, b""), hindrance, 0)
    return plan, _folder(state, source, target)


def _folder(state: State, source: str, target: Target) -> Path:
    """Return where what belongs to one source and one target is kept."""
    import hashlib

    name = hashlib.sha256(f"{source}\0{target.address}".encode()).hexdigest()
    return state.folder / "backfill" / name[:16]
