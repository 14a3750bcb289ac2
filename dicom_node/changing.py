"""A node goes by a configuration, and goes over to another while it runs.

The new one is judged as a whole, and its receivers have to be ready before anything of
the old one ends: a configuration that cannot work changes nothing. Then those that
receive by the old one accept nothing more and finish their associations, while others
accept on the same sockets; whoever filters, passes, releases or takes in finishes
what it is at, and another takes its place. What is owed lies in the queue all the while.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node.audit import Event
from dicom_node.config_file import read
from dicom_node.errors import AuditError, ConfigError, NodeError, SpoolError
from dicom_node.hatch_folder import make_folders
from dicom_node.reloading import Answer, digest_of
from dicom_node.review import left_behind
from dicom_node.state import State, keys_of
from dicom_node.supervising import LOOK_S, Heard, Role, held_for_others
from dicom_node.transition import Transition
from dicom_node.usability import (
    require_free_ports,
    require_same_state,
    require_usable,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dicom_node.audit import Audit
    from dicom_node.config import Config
    from dicom_node.doors import Doors
    from dicom_node.queue.sql_queue import SqlQueue
    from dicom_node.reloading import Watch
    from dicom_node.supervising import Crew

logger = logging.getLogger(__name__)

_WORKERS: Final = ("worker", "passer", "committer")
_REPORTER: Final = "reporter"
_FOLLOWER: Final = "follower"
_READY_S: Final = 60.0
"""How long new receivers may take to begin."""
_WORK_S: Final = 120.0
"""How long a worker may take to finish the job it is at."""
_DESK_S: Final = 10.0
_HATCH_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Rules:
    """A configuration, and what its processes are started with."""

    config: Config
    content: bytes
    descriptors: Sequence[int]
    """Of the sockets, in the order of the listeners."""
    receivers: Sequence[str]
    """The names of their roles, which no others have had."""
    handed_down: int = -1
    """Descriptor of :attr:`content`, for whoever is started."""
    secret: int = -1
    """Descriptor of the key of patients' pseudonyms, for those that receive."""
    options: Sequence[str] = ()
    """What each process is told of how to write its log."""
    heard: Heard = field(default_factory=Heard)
    """Who is ready."""

    def close(self) -> None:
        """Close what is handed down."""
        os.close(self.handed_down)
        os.close(self.secret)
        self.heard.close()

    def receiving(self, keys: int) -> dict[str, Role]:
        """Return the roles of those that receive, with the keys of the spool."""
        telling = self.heard.writing
        return {
            name: Role(
                "receiver",
                *("--number", name.removeprefix("receiver ")),
                *("--ready", str(telling), "--keys", str(keys)),
                *("--pseudonyms", str(self.secret)),
                *self.options,
                *("--listening", *map(str, self.descriptors)),
                keeps=[*self.descriptors, telling, self.secret, keys],
            )
            for name in self.receivers
        }

    def working(self) -> dict[str, Role]:
        """Return the roles of those that work off the queue."""
        wanted = {"passer": self.config.passed, "committer": self.config.commits}
        names = [name for name in _WORKERS if wanted.get(name, True)]
        return {name: Role(name, *self.options) for name in names}

    def reporting(self) -> dict[str, Role]:
        """Return the role of what tells others what happens."""
        return {_REPORTER: Role(_REPORTER, *self.options)}

    def watching(self) -> dict[str, Role]:
        """Return the roles of those that the node is looked at by."""
        tables = {"metrics": self.config.metrics, "web": self.config.web}
        return {
            name: Role(name, *self.options)
            for name, table in tables.items()
            if table is not None
        }

    def following(self) -> dict[str, Role]:
        """Return the role of what looks after the charter, if the site has one."""
        role = Role(_FOLLOWER, *self.options)
        return {} if self.config.charter is None else {_FOLLOWER: role}

    def releasing(self) -> dict[str, Role]:
        """Return the role of the desk, if there is one."""
        if self.config.release is None:
            return {}
        return {"desk": Role("desk", *self.options)}

    def taking_in(self, keys: int) -> dict[str, Role]:
        """Return the role of whoever takes in what is handed in, if there is a hatch."""
        handed = ("--keys", str(keys), "--pseudonyms", str(self.secret))
        role = Role("hatch", *handed, *self.options, keeps=[keys, self.secret])
        return {"hatch": role} if self.config.hatches else {}


class Changing:
    """Has the processes of a node go by one configuration after another."""

    def __init__(
        self,
        path: Path,
        *,
        crew: Crew,
        doors: Doors,
        audit: Audit,
        pseudonyms: bytes,
        options: Sequence[str],
        keys: int,
        stopping: threading.Event,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep what it needs.

        Args:
            path: Of the configuration.
            crew: The processes.
            doors: The sockets.
            audit: Where a change is written down, or that it was refused.
            pseudonyms: Key of the names that the audit gives to patients.
            options: Options that processes get, whatever configurations say.
            keys: Descriptor of the keys of the spool, for those that receive.
            stopping: Set once the node is told to stop.
            monotonic: Returns seconds.
        """
        self._path, self._crew, self._doors = path, crew, doors
        self._audit, self._stopping, self._monotonic = audit, stopping, monotonic
        self._pseudonyms = pseudonyms
        self._options = options
        self._keys = keys
        self._rules: _Rules | None = None
        self._numbered = 0
        self._is_assigned = True
        self._transition: Transition | None = None
        self.others_differ = False
        """Whether other nodes go by other routes: then those may be right, too."""

    def begin(self, config: Config, content: bytes) -> None:
        """Take on the roles of the first configuration.

        Raises:
            ConfigError: A port is taken.
        """
        rules = self._rules = self._prepared(config, content)
        roles = rules.working() | rules.receiving(self._keys) | rules.releasing()
        roles |= rules.taking_in(self._keys) | rules.reporting() | rules.watching()
        roles |= rules.following()
        self._crew.take(roles, rules.handed_down)
        self._transition = Transition(config.node.state)

    @property
    def is_ready(self) -> bool:
        """Return whether somebody takes instances in."""
        return self._rules is not None and self._rules.heard.count > 0

    @property
    def routing(self) -> str:
        """Return a digest of the routes that the node goes by, and where they lead."""
        assert self._rules is not None  # begun
        config = self._rules.config
        names = sorted(one.name for one in config.destinations)
        routes = [(route.name, route.action.value) for route in config.routes]
        leads = [route.destinations for route in config.routes]
        pools = [(pool.name, pool.members) for pool in config.pools]
        text = json.dumps([names, routes, leads, pools])
        return digest_of(text.encode())

    def close(self) -> None:
        """Close what is open; the processes are gone."""
        if self._rules is not None:
            self._rules.close()

    def look(self, watch: Watch) -> None:
        """See whether there is another configuration, and go over to it."""
        if (seen := watch.look()) is not None:
            watch.answer(seen.token, self._judged(seen.content))
        if not self._is_assigned and not self._crew.is_anybody_leaving:
            # Those that left may have owed something to lanes of other times.
            self._assign(is_quiet=False)
            self._is_assigned = True
        if self._transition is not None:
            if self.others_differ:
                self._transition.begin()
            elif self._is_assigned:
                self._transition.end()

    def _judged(self, content: bytes | None) -> Answer:
        assert self._rules is not None  # begun
        digest = "" if content is None else digest_of(content)
        if content == self._rules.content:
            return Answer(is_taken=True, says=f"the node goes by this file: {digest}")
        try:
            self._change(content)
        except NodeError as error:
            logger.error("configuration refused, the old one stands: %s", error)  # noqa: TRY400
            self._note("refused", digest, str(error))
            return Answer(is_taken=False, says=str(error), hint=error.hint)
        except Exception as error:
            # Whatever it was: it ends no node that runs.
            says = f"it cannot be taken: unexpected {type(error).__name__}"
            logger.exception("configuration refused, the old one stands")
            self._note("refused", digest, says)
            return Answer(is_taken=False, says=says, hint="The node's log says more.")
        logger.warning("configuration taken digest=%s", digest)
        self._note("taken", digest, "")
        warnings = left_behind(self._rules.config, self._owed())
        for warning in warnings:
            logger.warning("%s", warning)
        return Answer(is_taken=True, says="; ".join([f"taken: {digest}", *warnings]))

    def _note(self, did: str, digest: str, reason: str) -> None:
        try:
            self._audit.add(
                Event.CONFIGURED, did=did, digest=digest, reason=reason[:500]
            )
        except AuditError:
            logger.exception("not written down")

    def _change(self, content: bytes | None) -> None:
        """Go over to what a file says.

        Raises:
            ConfigError: It cannot be, and nothing has changed.
        """
        old = self._rules
        assert old is not None  # begun
        if content is None:
            raise ConfigError(f"{self._path} cannot be read")
        config = read(content, self._path)
        require_same_state(old.config, config)
        keys_of(State(config.node.state), config.node.fingerprint)
        require_usable(config)
        require_free_ports(old.config, config)
        try:
            if self._transition is not None:
                self._transition.begin()
            new = self._prepared(config, content)
        except OSError as error:
            self._doors.keep_only(old.config.listeners)
            raise ConfigError(
                f"no process can be prepared: {error.strerror}"
            ) from error
        except Exception:
            self._doors.keep_only(old.config.listeners)
            raise
        crew = self._crew
        crew.take(new.receiving(self._keys), new.handed_down)
        crew.look()
        if not self._are_ready(new):
            crew.end(new.receivers, _DESK_S)
            self._doors.keep_only(old.config.listeners)
            new.close()
            raise ConfigError(
                "its receivers did not begin", hint="The log says what they met."
            )
        crew.dismiss(old.receivers)
        self._rules, self._is_assigned = new, False
        crew.end(["hatch"], _HATCH_S)
        crew.end(_WORKERS, _WORK_S)
        self._assign(is_quiet=True)
        if config.release != old.config.release:
            crew.end(["desk"], _DESK_S)
        crew.end([*old.watching(), _REPORTER, _FOLLOWER], _DESK_S)
        roles = new.working() | new.releasing() | new.taking_in(self._keys)
        roles |= new.reporting() | new.watching() | new.following()
        crew.take(roles, new.handed_down)
        crew.look()
        self._doors.keep_only(config.listeners)
        old.close()

    def _prepared(self, config: Config, content: bytes) -> _Rules:
        make_folders(config.hatches)
        descriptors = self._doors.open(config.listeners)
        first, self._numbered = self._numbered, self._numbered + config.node.receivers
        return _Rules(
            config,
            content,
            descriptors,
            [f"receiver {number}" for number in range(first, self._numbered)],
            held_for_others(content),
            held_for_others(self._pseudonyms),
            self._options,
        )

    def _are_ready(self, rules: _Rules) -> bool:
        end = self._monotonic() + _READY_S
        while self._crew.are_running(rules.receivers):
            if rules.heard.count >= len(rules.receivers):
                return True
            if self._monotonic() > end or self._stopping.wait(LOOK_S):
                return False
            self._crew.look()
        return False

    def _assign(self, *, is_quiet: bool) -> None:
        """Put what is owed into the lanes that its routes have now."""
        try:
            with closing(self._queue()) as queue:
                assert self._rules is not None  # or there were no queue
                routes = self._rules.config.routes
                leads = {route.name: route.destinations[0] for route in routes}
                queue.assign(leads, is_quiet=is_quiet)
        except SpoolError:
            logger.exception("what is owed could not be put into its lanes")

    def _owed(self) -> dict[str, int]:
        try:
            with closing(self._queue()) as queue:
                return queue.owed()
        except SpoolError:
            return {}

    def _queue(self) -> SqlQueue:
        assert self._rules is not None  # begun
        config = self._rules.config
        return State(config.node.state).queue(config.passed)
