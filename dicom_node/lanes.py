"""The processes that work off the queue: one that filters and sends, one that passes.

Which process is the one of its lane is decided by a lock on a file, which the kernel
drops with its holder.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from dicom_node.ahead import Ahead
from dicom_node.bell import Bell
from dicom_node.bench import Bench
from dicom_node.codec_process import CodecProcess
from dicom_node.errors import SpoolError
from dicom_node.finders import cluster_search, may_search
from dicom_node.glass import Glass
from dicom_node.hands import Hands
from dicom_node.keepers import codestream_keeper, keeper
from dicom_node.keys.sealer import Sealer
from dicom_node.mapped import hold_in_memory
from dicom_node.markers import BatchMarker, marker, referrer
from dicom_node.outage import Outage
from dicom_node.probing import Probing
from dicom_node.queue.job import Lane
from dicom_node.readying import Readying
from dicom_node.routing import Action
from dicom_node.senders import Senders, probe
from dicom_node.state import State, keys_of, now, opening_with
from dicom_node.stop_note import StopNote
from dicom_node.stopping import Stopping
from dicom_node.supervising import LOOK_S, locked
from dicom_node.transition import is_on
from dicom_node.worker import Worker

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from dicom_node.codestreams import Given
    from dicom_node.config import Config
    from dicom_node.decoding import Decode
    from dicom_node.filters.strip import Restored
    from dicom_node.keys.desk import DeskClient
    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger import Ledger
    from dicom_node.listings import Listings
    from dicom_node.opening import Opening
    from dicom_node.queue.sql_commitments import SqlCommitments
    from dicom_node.queue.sql_queue import SqlQueue
    from dicom_node.room import Room
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

NAMES: Final = {Lane.FILTER: "worker", Lane.PASS: "passer"}
"""Of the process that works in a lane, and of its lock."""
_PATIENCE: Final = 5
"""How much less of a busy machine filtering gets than receiving and passing, where marks
are looked for: that takes all it can have."""
_REST_AFTER_S: Final = 2.0
"""How long nothing is due to a destination until what is open there is closed."""
_TEND_AFTER_S: Final = 1.0
_LOOK_AFTER_S: Final = 1.0
"""How long it takes at most until something is seen that nobody has rung for."""
_BETWEEN_S: Final = 0.02
"""How long it takes at least from one look to the next while something is sent, unless
that is finished: of what comes in then, not each has to be seen by itself."""
_LATE: Final = timedelta(days=7)
"""How long what comes of a study that was complete is known to come late."""
LEFT_AFTER_S: Final = 600.0
"""How long what is coming in may lie in the spool and not be owed yet."""


def work(config: Config, parent: int, lane: Lane = Lane.FILTER) -> None:
    """Work until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: What to do.
        parent: Process number of the node.
        lane: Whose jobs. What passes has a process of its own, so that it waits for no
            mark; when both have something to do, marks wait.
    """
    if lane is Lane.FILTER and any(r.action is Action.MARK for r in config.routes):
        os.nice(_PATIENCE)
    stopping = Stopping()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    state = State(config.node.state)
    _keep_from_tmp(config, state)
    with ExitStack() as stack:
        while (held := locked(state.folder / f"{NAMES[lane]}.lock")) is None:
            # The worker of a node that was killed has not noticed yet.
            if stopping.wait(LOOK_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        queue = stack.enter_context(closing(state.queue(config.passed, lane)))
        bell = stack.enter_context(closing(Bell(state.bell(lane))))
        note = StopNote(state.folder / f"{NAMES[lane]}.stop")
        keyring = keys_of(state, config.node.fingerprint)
        bench = stack.enter_context(closing(Bench(state.folder / f"{NAMES[lane]}.at")))
        suspects = frozenset[int]() if note.taken() else bench.suspects
        spool = _taken_over(config, state, keyring, queue, lane, suspects)
        signal.signal(signal.SIGTERM, partial(_stop, stopping, note, bell))
        ledger = stack.enter_context(state.ledger())
        renamings = stack.enter_context(state.renamings(keyring))
        found_marks = stack.enter_context(state.found_marks(keyring))
        sealer = Sealer(keyring, ledger.number)
        decode = stack.enter_context(CodecProcess())
        listings = _listings(config, state, keyring, stack)
        codestreams = state.codestreams()
        figures = stack.enter_context(state.figures())

        def as_it_came(restored: Restored, opening: Opening) -> Given:
            header = ledger.header_of(restored.record_id)
            return codestreams.as_it_came(restored.file, header, opening.openers)

        audit = state.audit(keyring)
        marks = BatchMarker(
            config.node.weights,
            sealer,
            now,
            config.node.marking,
            renamings.find,
            decode,
            found_marks.find,
            partial(may_search, state.folder, keyring),
            config.node.search_threads,
            stack.enter_context(
                cluster_search(
                    config.cluster,
                    config.node.weights,
                    config.node.marking,
                    state.folder,
                    bench.away,
                )
            ),
        )
        wanted = listings if lane is Lane.FILTER else None
        readying = Readying(
            queue=queue,
            spool=spool,
            keep=keeper(keyring, ledger, renamings, found_marks, now),
            keep_codestream=codestream_keeper(keyring, codestreams),
            as_it_came=as_it_came,
            grants=stack.enter_context(state.grants(keyring)),
            audit=audit,
            opening=_opening(config, keyring, ledger),
            own_tenant=keyring.ring.tenant,
            mark=marker(marks),
            refer=referrer(sealer, now, config.node.marking, renamings.find),
            decode=decode,
            clock=now,
            listings=wanted,
            took=figures.took,
            ahead=_ahead(config, marks),
        )
        worker = Worker(
            config,
            queue=queue,
            spool=spool,
            readying=readying,
            glass=Glass(config.break_glass, audit, now),
            senders=_senders(config, state, decode, stack),
            clock=now,
            listings=wanted,
            commitments=_commitments(config, state, queue, spool, stack),
            bench=bench,
            hands=Hands(bell.ring),
            is_changing=partial(is_on, state.folder),
        )
        stack.callback(worker.close)

        swept = time.monotonic()

        def tend() -> None:
            """See to disk and memory: room, and what is too old, or others have left."""
            nonlocal swept
            _tend(room, queue, config, readying)
            figures.flush()
            if time.monotonic() - swept > LEFT_AFTER_S:
                swept = time.monotonic()
                sweep_left(state, queue, spool, alone=False)

        def recover() -> bool:
            """Take up again what could not be settled; say whether that is done."""
            room.tend()
            return worker.recover(now() + config.retry.first_wait)

        room = state.room(config.storage)
        _run(worker, tend, recover, stopping, parent, bell)


def _ahead(config: Config, marks: BatchMarker) -> Ahead | None:
    """Return what looks ahead where others look for marks.

    Here it would gain next to nothing: a search has the whole machine, and is nearly all
    of the work. Nor would anybody know whose picture the process died of.
    """
    if config.cluster is None:
        return None
    return Ahead(marks.seek_one, config.cluster.most)


def _listings(
    config: Config, state: State, keyring: Keyring, stack: ExitStack
) -> Listings:
    """Return what is to be listed, open until the end of a block."""
    listings = stack.enter_context(closing(state.listings(keyring)))
    listings.keep_only([route.name for route in config.routes if route.listing])
    return listings


def _opening(
    config: Config, keyring: Keyring, ledger: Ledger
) -> Callable[[str], Opening]:
    """Return what opens objects of a study, other sites' desks among it."""
    asked = _desk_clients(config, keyring)

    def opening(study: str) -> Opening:
        site = opening_with(keyring, ledger)
        desks = [client.opener(study) for client in asked]
        return replace(site, openers=[*site.openers, *desks])

    return opening


def _commitments(
    config: Config, state: State, queue: SqlQueue, spool: Spool, stack: ExitStack
) -> SqlCommitments:
    """Return what is to be promised, open until the end of a block."""
    commitments = state.commitments()
    stack.callback(commitments.close)
    asked = [one.name for one in config.destinations if one.commitment]
    if given_up := commitments.give_up(asked, now()):
        logger.warning("not asked to commit any more: instances=%d", len(given_up))
        spool.delete(queue.forget_sent(given_up))
    return commitments


def _tend(room: Room, queue: SqlQueue, config: Config, readying: Readying) -> None:
    """Keep disk and memory from filling up, by what is old as well."""
    readying.tend()
    room.tend()
    queue.purge(now() - config.storage.keep_sent)


def _senders(
    config: Config, state: State, decode: Decode, stack: ExitStack
) -> Callable[[], Senders]:
    """Return what says to whom jobs go; who is down is asked beside all work."""
    probing = Probing(
        config,
        lambda: state.reachability(config),
        partial(probe, calling=config.node.ae_title),
        now,
    )
    probing.start()
    stack.callback(probing.stop)
    return partial(
        Senders,
        config,
        reachability=stack.enter_context(state.reachability(config)),
        slots=state.slots(),
        decode=decode,
        clock=now,
    )


def _keep_from_tmp(config: Config, state: State) -> None:
    """Let what memory has no room for lie beside what is coming in, not in /tmp.

    Where that is sealed, it lies in no file at all.
    """
    tempfile.tempdir = str(state.spool().incoming)
    hold_in_memory(is_so=config.storage.encrypt)


def _stop(stopping: threading.Event, note: StopNote, bell: Bell, *_: object) -> None:
    stopping.set()
    note.leave()
    bell.ring()


def _taken_over(
    config: Config,
    state: State,
    keyring: Keyring,
    queue: SqlQueue,
    lane: Lane,
    suspects: frozenset[int],
) -> Spool:
    """Take up what whoever worked in a lane before has left, and return the spool."""
    again = now() + config.retry.first_wait
    released = queue.release_claims(again, suspects=suspects)
    if released:
        logger.info("released jobs=%d", released)
    spool = state.spool(keyring.spool, encrypts=config.storage.encrypt)
    # Only filtering makes files to be sent, and that of other nodes.
    sweep_left(state, queue, spool, alone=lane is Lane.FILTER and not state.node)
    return spool


def sweep_left(state: State, queue: SqlQueue, spool: Spool, *, alone: bool) -> None:
    """Delete what others have left, and forget what is long over.

    Whoever dies once something is settled leaves its files owed to nobody; where it is
    another node, that may never come back to forget them.
    """
    spool.delete(queue.forget_sent())
    spool.sweep_left(queue.files, time.time() - LEFT_AFTER_S, alone=alone)
    state.codestreams().sweep(time.time() - LEFT_AFTER_S)
    queue.forget_studies(now() - _LATE)


def _run(
    worker: Worker,
    tend: Callable[[], None],
    recover: Callable[[], bool],
    stopping: threading.Event,
    parent: int,
    bell: Bell,
) -> None:
    tended = time.monotonic()
    is_well, outage = True, Outage()
    while not stopping.is_set() and os.getppid() == parent:
        is_begun, looked, busy = False, time.monotonic(), worker.busy
        try:
            if looked - tended > _TEND_AFTER_S:
                tended = looked
                tend()
            is_well = is_well or recover()
            is_begun = worker.turn()
            outage.over()
        except SpoolError as error:
            is_well = False
            stopping.wait(outage.met(error))
        if is_begun:
            continue
        worker.rest(_REST_AFTER_S)
        is_soon = worker.is_waiting or not is_well
        bell.wait(LOOK_S if is_soon else _LOOK_AFTER_S)
        left = looked + _BETWEEN_S - time.monotonic()
        if left > 0 and worker.busy and worker.busy >= busy:
            stopping.wait(left)


def _desk_clients(config: Config, keyring: Keyring) -> list[DeskClient]:
    """Return what asks the desks that the configuration names."""
    from dicom_node.keys.desk import DeskClient

    identities = keyring.identities()
    return [DeskClient(d, config.node.ae_title, identities) for d in config.desks]
