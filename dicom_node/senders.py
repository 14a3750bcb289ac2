"""To whom the jobs of a line go: which member of a pool, on which association.

One association is open at a time. It belongs to one destination and one study, and ends
when something else is due: a receiver may take its end for the end of the study. What
cannot be delivered is noted of the destination, so that nobody tries it again before it
answers (see :mod:`dicom_node.breaker`).
"""

from __future__ import annotations

import logging
import random
import time
from typing import IO, TYPE_CHECKING, Final

from dicom_node import breaker as breaking
from dicom_node.breaker import NEW, Trouble
from dicom_node.destination import Kind
from dicom_node.errors import (
    BrokenOffError,
    BusyError,
    OutOfResourcesError,
    SendError,
    SendRefusedError,
    SpoolError,
    UnaskedError,
    UnreachableError,
)
from dicom_node.queue.claims import Resting
from dicom_node.scu import Sending
from dicom_node.stow import StowSending
from dicom_node.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from dicom_node.breaker import Health
    from dicom_node.config import Config
    from dicom_node.decoding import Decode
    from dicom_node.destination import Destination
    from dicom_node.outgoing import Receiver, Sender
    from dicom_node.reachability import Reachability
    from dicom_node.slots import Slots

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 0.2
"""After which it is seen again whether a destination has an association to spare."""
_TURN_S: Final = 3.0
"""How long one process keeps an association that another waits for."""


class NoTurnError(UnreachableError):
    """Others have all the associations that the destination is allowed."""


class _Later:
    """Whom something will be sent to; there is no association before it is asked."""

    def __init__(
        self, destination: Destination, to: Callable[[], Sending | StowSending]
    ) -> None:
        self.destination, self._to = destination, to

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        """Return who would be sent an instance of that class and transfer syntax."""
        return self._to().receiver(sop_class, syntax)


class Senders:
    """Opens associations, and knows whom there is no use in calling; of one thread."""

    def __init__(
        self,
        config: Config,
        *,
        reachability: Reachability,
        slots: Slots,
        decode: Decode,
        clock: Callable[[], datetime],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Keep what it needs.

        Args:
            config: Who there is.
            reachability: How each of them is.
            slots: How many associations each may have.
            decode: Calls the codecs, for what is put into another transfer syntax.
            clock: Returns the time, aware.
            chance: Returns a number from 0 up to 1.
        """
        self._config, self._reachability, self._slots = config, reachability, slots
        self._decode, self._clock, self._chance = decode, clock, chance
        self._health: dict[str, Health] = {}
        self._unnoted: dict[str, Health] = {}
        """How those are of whom that could not be written down: known here alone."""
        self._busy: dict[str, float] = {}
        """Until when a destination that has no association to spare is left alone."""
        self._refused: Destination | None = None
        """Who had none to spare the last time."""
        self._waited: dict[str, Destination] = {}
        """To whom jobs wait, pools among it, and whose association they wait for."""
        self._sending: Sending | StowSending | None = None
        self.is_laden = False
        """Whether something is put together for what is open: it ends after that."""
        self._study = self._title = ""
        self._slot: IO[bytes] | None = None
        self._since = 0.0

    @property
    def health(self) -> Mapping[str, Health]:
        """Return how each destination was when that was looked up last."""
        return self._health

    def resting(
        self, now: datetime, health: Mapping[str, Health] | None = None
    ) -> Resting:
        """Return whom there is no use in calling now: destinations, and whole pools.

        Args:
            now: Aware.
            health: How each destination is; None to look that up.
        """
        known = self._reachability.all() if health is None else health
        for name, here in list(self._unnoted.items()):
            if not here.rests(now) and known.get(name, NEW).rests(now):
                del self._unnoted[name]  # it was noted after all, by another
        self._health = {**known, **self._unnoted}
        moment = time.monotonic()
        down = {name for name, one in self._health.items() if one.rests(now)}
        down |= {name for name, until in self._busy.items() if moment < until}
        for name, member in list(self._waited.items()):
            is_down = self._now(member).rests(now)
            if is_down or (member.name not in down and self._slots.is_free(member)):
                del self._waited[name]
        down |= self._waited.keys()
        pools = [p.name for p in self._config.pools if down.issuperset(p.members)]
        return Resting(destinations=frozenset({*down, *pools}))

    def up(self, members: Iterable[Destination]) -> list[Destination]:
        """Return those of ``members`` that are worth a try, in their order."""
        now = self._clock()
        return [one for one in members if not self._now(one).rests(now)]

    def _now(self, destination: Destination) -> Health:
        return self._health.get(destination.name, NEW)

    def to(
        self, destination: Destination, study: str, sender: str = ""
    ) -> Sending | StowSending:
        """Return what sends to a destination; its association is open, or will be.

        Args:
            destination: To whom.
            study: Of what is to be sent.
            sender: Title of whoever it came from; empty if nobody has said one.

        Raises:
            NoTurnError: Others have all the associations that it is allowed.
        """
        sending = self._sending
        title = destination.calling(self._config.node.ae_title, sender)
        if sending is not None and (
            sending.destination != destination
            or title != self._title
            or (destination.one_study and study != self._study)
            or self._is_over(destination)
        ):
            self.rest()
        if self._sending is None:
            self._take(destination)
            throttle = throttle_of(destination, self._slots)
            if destination.kind is Kind.STOW:
                self._sending = StowSending(
                    destination, self._decode, self._clock, throttle
                )
            else:
                self._sending = Sending(destination, title, self._decode, throttle)
        self._study, self._title = study, title
        return self._sending

    def later(self, destination: Destination, study: str, sender: str = "") -> Sender:
        """Return who is sent to, for what is made ready first; see :meth:`to`."""
        return _Later(destination, lambda: self.to(destination, study, sender))

    def let_others(self) -> None:
        """Give up an association that another waits for: it is not needed for now."""
        sending = self._sending
        if self._slot is None or sending is None:
            return
        if self._slots.is_wanted(sending.destination):
            self.rest()

    def wait_for_turn(self, name: str) -> None:
        """Let jobs rest until whoever had no association to spare has one.

        Args:
            name: Of the destination or pool that they are owed to.
        """
        if self._refused is not None:
            self._waited[name] = self._refused

    def _is_over(self, destination: Destination) -> bool:
        """Say whether this process has had its turn, and another waits."""
        if self._slot is None or time.monotonic() - self._since < _TURN_S:
            return False
        if self.is_laden:
            return False  # it would leave on a connection that nobody counts
        return self._slots.is_wanted(destination)

    def _take(self, destination: Destination) -> None:
        if not destination.max_associations:
            return
        moment, name = time.monotonic(), destination.name
        if moment >= self._busy.get(name, 0.0):
            self._slot, self._since = self._slots.take(destination), moment
            if self._slot is not None:
                return
            self._busy[name] = moment + _AGAIN_S
        self._refused = destination
        raise NoTurnError(
            f"{name} has {destination.max_associations} associations with this node",
            hint="As many as max_associations allows; it goes on when one ends.",
        )

    def failed(self, destination: Destination, error: Exception) -> None:
        """Note what a failure says of a destination.

        Where that cannot be written down it is known here, so that whoever is down is
        left alone all the same.
        """
        name = destination.name
        if isinstance(error, UnaskedError):
            return  # nothing was heard of it
        if isinstance(error, SendRefusedError):
            self.took(destination)  # it is there, and said no to this object
            return
        if isinstance(error, OutOfResourcesError):
            trouble = Trouble.FULL
        elif isinstance(error, (UnreachableError, BrokenOffError)):
            trouble = Trouble.UNREACHABLE
        else:
            return
        before, now = self._now(destination), self._clock()
        wait_s = error.wait_s if isinstance(error, BusyError) else 0.0
        try:
            after = self._reachability.failed(
                name, trouble, str(error), now, wait_s=wait_s
            )
            self._unnoted.pop(name, None)
        except SpoolError as unnoted:
            _not_noted(destination, unnoted)
            if before.rests(now):
                return
            # Who asks those that are down will not know of it: only trying tells.
            after = self._unnoted[name] = breaking.failed(
                before,
                Trouble.FULL,
                str(error),
                now=now,
                breaker=self._config.breaker,
                chance=self._chance,
                wait_s=wait_s,
            )
        self._health[name] = after
        if after.since is not None and after.again != before.again:
            logger.error(
                "down destination=%s since=%s again=%s reason=%s",
                name,
                after.since.isoformat(timespec="seconds"),
                after.again and after.again.isoformat(timespec="seconds"),
                error,
            )

    def took(self, destination: Destination) -> None:
        """Note that a destination has taken something, if that can be written down."""
        if self._now(destination) == NEW:
            return
        self._health[destination.name] = NEW
        self._unnoted.pop(destination.name, None)
        try:
            self._reachability.took(destination.name)
        except SpoolError as unnoted:
            _not_noted(destination, unnoted)
            return
        logger.info("up destination=%s", destination.name)

    @property
    def are_open(self) -> bool:
        """Return whether an association is open, or may be."""
        return self._sending is not None

    def rest(self) -> None:
        """Close what is open."""
        sending, self._sending = self._sending, None
        slot, self._slot = self._slot, None
        if sending is not None:
            sending.close()
        if slot is not None:
            slot.close()
            assert sending is not None  # it was taken for it
            if self._slots.is_wanted(sending.destination):
                # Who has waited comes first.
                until = time.monotonic() + 2 * _AGAIN_S
                self._busy[sending.destination.name] = until


def _not_noted(destination: Destination, error: SpoolError) -> None:
    """Say so, and no more: what was sent is sent, and what was not is not."""
    logger.error("not noted destination=%s reason=%s", destination.name, error)


def probe(destination: Destination, calling: str) -> None:
    """Return if a destination answers: an echo, or a request that stores nothing.

    Args:
        destination: Which.
        calling: How this node calls itself.

    Raises:
        SendError: It does not.
    """
    if destination.kind is Kind.STOW:
        with StowSending(destination) as sending:
            sending.probe()
    else:
        Sending(destination, destination.calling(calling, "")).probe()


def throttle_of(destination: Destination, slots: Slots) -> Throttle | None:
    """Return what holds sending to the speed of a destination; None if nothing does."""
    if not destination.max_bytes_per_s:
        return None
    path = slots.path(destination, "pace")
    return Throttle(path, destination.max_bytes_per_s, time.monotonic, time.sleep)


def worst(errors: Sequence[Exception], members: int) -> Exception:
    """Return what has to be done about a job that no member of a pool has taken.

    Args:
        errors: What each that was tried has come to.
        members: How many there are.
    """
    if not errors:
        return UnreachableError("nobody is up")
    refusals = [
        error
        for error in errors
        if not isinstance(error, SendError) or isinstance(error, SendRefusedError)
    ]
    if len(refusals) == members:
        return refusals[-1]
    passing = [error for error in errors if error not in refusals]
    for error in passing:
        if not isinstance(error, UnreachableError):
            return error
    if refusals:
        # Another may take it, so no person has to look yet; but not at once, again and
        # again.
        said = OutOfResourcesError(f"{refusals[-1]}; others of the pool are down")
        said.hint = getattr(refusals[-1], "hint", "")
        return said
    return passing[0]
