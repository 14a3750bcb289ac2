"""The node's configuration: made once, never changed afterwards.

What cannot work is refused when it is made. Where it comes from is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.addressing import check_ae_title, check_port
from dicom_node.auditing import Auditing
from dicom_node.breaker import Breaker
from dicom_node.emergency import BreakGlass
from dicom_node.errors import ConfigError
from dicom_node.listening import Guarding, Listening, Peer
from dicom_node.log import Logging
from dicom_node.marking import Marking, Profile, WeakMarks
from dicom_node.queueing import Queueing
from dicom_node.routing import Action, Route
from dicom_node.storage import Storage
from dicom_node.timing import Complete
from miadmark_core.mode import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.chartered import Following
    from dicom_node.destination import Destination
    from dicom_node.hatch import Hatch
    from dicom_node.notifying import Notifying
    from dicom_node.pool import Pool
    from dicom_node.watching import Metrics, Web

_CHARACTER_SET: Final = 0x00080005
_STUDY_RELATED_INSTANCES: Final = 0x00201208


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who the node is, and where it listens if there is no ``[[listener]]``."""

    ae_title: str = "MIADMARK"
    """How the node calls itself when it sends: 1 to 16 characters."""
    called_ae_titles: tuple[str, ...] = ()
    """Further titles that it answers to, beside those that routes name."""
    bind: str = "127.0.0.1"
    """The address to listen on. Loopback, until someone says otherwise."""
    port: int = 11112
    receivers: int = 1
    """Processes that receive; a third of a gigabit a second or so each."""
    state: Path = Path("miadmark-state")
    """Keys, ledger, queue and spool; relative to the configuration file."""
    weights: Path | None = None
    """Surrogates of this site; the shipped ones by default."""
    profile: Profile = Profile.STANDARD
    mode: Mode = Mode.AUTO
    weak_marks: WeakMarks = WeakMarks.HOLD
    fingerprint: str = ""
    """Of this site's keys (miadmark keys list): the node starts with no others."""
    max_associations: int = 60
    """At once, in each receiving process."""
    timeout_s: float = 30.0
    """For the next message of a peer, in seconds."""
    search_threads: int = 0
    """Of the search for marks, which depend on it; 0 for as many as there are cores."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for title in (self.ae_title, *self.called_ae_titles):
            check_ae_title("node", title)
        check_port("node", self.port)
        if not 1 <= self.receivers <= 64:
            raise ConfigError(f"node: receivers {self.receivers}", hint="1 to 64.")
        if not 0 <= self.search_threads <= 1024:
            raise ConfigError(f"node: search_threads {self.search_threads}")
        if self.max_associations < 1:
            raise ConfigError(f"node: max_associations {self.max_associations}")

    @property
    def marking(self) -> Marking:
        """Return how this node marks."""
        return Marking(profile=self.profile, mode=self.mode, weak_marks=self.weak_marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDesk:
    """Where receivers ask for object keys (mediated): HTTPS, certificates both ways."""

    certificate: Path
    key: Path
    client_ca: Path
    """Certificates that receivers' must be signed by, PEM."""
    crl: Path | None = None
    """Certificates that were revoked, PEM."""
    bind: str = "127.0.0.1"
    port: int = 11143

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        check_port("release", self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteDesk:
    """Another site's desk, which this one asks for the keys of its records."""

    address: str
    """``https://host:port``."""
    gateway: str
    """Fingerprint of the site whose records it releases, from its site file."""
    ca: Path
    certificate: Path
    key: Path
    purpose: str = "treatment"

    def __post_init__(self) -> None:
        """Refuse what would ask in the clear."""
        if not self.address.startswith("https://"):
            raise ConfigError(f"desk {self.address!r}", hint="https://host:port")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Ray cluster that marks are looked for on."""

    ray: str
    """``host:port`` of its head; this machine is one of the cluster."""
    key: Path | None = None
    """What is sent there is sealed with; the same file on all its machines. By default
    ``cluster.key`` in the state folder, made when it is first needed."""
    least: int = 1
    """Workers that there are always; each has a core, or a GPU."""
    most: int = 8
    """Workers at most, when there is work for them."""
    gpus: bool = False
    """Whether each has a GPU."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        host, _, port = self.ray.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"cluster: ray {self.ray!r}", hint="host:port")
        if not 1 <= self.least <= self.most <= 1024:
            raise ConfigError(
                f"cluster: least {self.least}, most {self.most}",
                hint="1 or more, and no more at least than at most.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a failed sending is tried again."""

    first_wait_s: float = 10.0
    longest_wait_s: float = 3600.0
    max_attempts: int = 48
    """Of an instance on a route; then a person has to look."""
    max_faults: int = 5
    """Failures that nobody foresaw, after which an instance is quarantined."""
    max_crashes: int = 3
    """Workers that died at an instance, after which it is quarantined untried."""

    @property
    def first_wait(self) -> timedelta:
        """Return :attr:`first_wait_s`."""
        return timedelta(seconds=self.first_wait_s)

    @property
    def longest_wait(self) -> timedelta:
        """Return :attr:`longest_wait_s`."""
        return timedelta(seconds=self.longest_wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of it."""

    node: Listener
    destinations: tuple[Destination, ...]
    routes: tuple[Route, ...]
    pools: tuple[Pool, ...] = ()
    queue: Queueing = field(default_factory=Queueing)
    retry: Retry = field(default_factory=Retry)
    cluster: Cluster | None = None
    """Where marks are looked for; None for here."""
    breaker: Breaker = field(default_factory=Breaker)
    storage: Storage = field(default_factory=Storage)
    audit: Auditing = field(default_factory=Auditing)
    log: Logging = field(default_factory=Logging)
    notify: tuple[Notifying, ...] = ()
    release: ReleaseDesk | None = None
    desks: tuple[RemoteDesk, ...] = ()
    guard: Guarding = field(default_factory=Guarding)
    listeners: tuple[Listening, ...] = ()
    """Where instances come in; on ``bind`` and ``port`` of the node if none is given."""
    peers: tuple[Peer, ...] = ()
    hatches: tuple[Hatch, ...] = ()
    """Folders through which programs on this machine hand objects in."""
    break_glass: BreakGlass = field(default_factory=BreakGlass)
    metrics: Metrics | None = None
    web: Web | None = None
    charter: Following | None = None
    """What the nodes of one site have in common; None for a site with one node."""

    def __post_init__(self) -> None:
        """Refuse names that are used twice or not at all."""
        names = [d.name for d in self.destinations]
        for kind, used in (
            ("destination", [*names, *(pool.name for pool in self.pools)]),
            ("route", [r.name for r in self.routes]),
            ("peer", [p.ae_title for p in self.peers]),
            ("notify", [n.name for n in self.notify]),
            ("hatch", [h.name for h in self.hatches]),
            ("folder of a hatch", [str(h.folder) for h in self.hatches]),
            ("listener", [f"{d.bind}:{d.port}" for d in self.listeners if d.port]),
        ):
            twice = {name for name in used if used.count(name) > 1}
            if twice:
                raise ConfigError(f"{kind} {twice.pop()!r} is there twice")
        for pool in self.pools:
            _require_known(f"pool {pool.name!r}", pool.members, names)
        names += [pool.name for pool in self.pools]
        for route in self.routes:
            _require_known(f"route {route.name!r}", route.destinations, names)
            for name in route.destinations:
                _require_titles(route, self.members(name))

        if not self.listeners:
            # The only assignment there is: what was left out, made of what was not.
            made = Listening(bind=self.node.bind, port=self.node.port)
            object.__setattr__(self, "listeners", (made,))
        if all(door.asks_for_certificates for door in self.listeners):
            for peer in self.peers:
                if not peer.needs_certificate:
                    raise ConfigError(
                        f"peer {peer.ae_title!r} has neither fingerprints nor names, and "
                        "every listener asks for certificates",
                        hint="An AE title alone proves nothing: say which certificate "
                        "it goes with.",
                    )

    @property
    def called_ae_titles(self) -> frozenset[str]:
        """Return the titles that the node answers to."""
        of_routes = (title for r in self.routes for title in r.called_ae_titles)
        return frozenset({self.node.ae_title, *self.node.called_ae_titles, *of_routes})

    @property
    def matched_tags(self) -> frozenset[int]:
        """Return the tags of the top level that conditions of routes look at."""
        tags = {
            condition.path[0]
            for route in self.routes
            for condition in (*route.where, *route.priority_where)
        }
        if any(route.study is Complete.COUNT for route in self.routes):
            tags |= {_STUDY_RELATED_INSTANCES}
        # Without the character set, names would be read as something else.
        return frozenset(tags | {_CHARACTER_SET} if tags else ())

    @property
    def passed(self) -> frozenset[str]:
        """Return the names of routes that send instances as they came."""
        return frozenset(r.name for r in self.routes if r.action is Action.PASS)

    def peer(self, ae_title: str) -> Peer | None:
        """Return the peer of that title, if there is one."""
        return next((p for p in self.peers if p.ae_title == ae_title), None)

    def committing(self, ae_title: str) -> list[Destination]:
        """Return the destinations of that title that are to promise what they keep."""
        return [d for d in self.destinations if d.commitment and d.ae_title == ae_title]

    @property
    def commits(self) -> bool:
        """Return whether anybody is asked for storage commitment, or may ask."""
        return any(d.commitment for d in self.destinations) or any(
            p.commitment for p in self.peers
        )

    def destination(self, name: str) -> Destination | None:
        """Return the destination of that name, if it is still there."""
        return next((d for d in self.destinations if d.name == name), None)

    def members(self, name: str, study: str = "") -> tuple[Destination, ...]:
        """Return who may be sent what is owed to a destination or a pool.

        Args:
            name: Of the destination or pool; nobody, if it is not there any more.
            study: Study Instance UID, by which a pool may choose.

        Returns:
            In the order in which they are tried.
        """
        by_name = {one.name: one for one in self.destinations}
        pool = next((one for one in self.pools if one.name == name), None)
        names = (name,) if pool is None else pool.order(study)
        return tuple(by_name[one] for one in names if one in by_name)

    def route(self, name: str) -> Route | None:
        """Return the route of that name, if it is still there."""
        return next((r for r in self.routes if r.name == name), None)


def _require_titles(route: Route, destinations: tuple[Destination, ...]) -> None:
    """Return if grants can name whoever is sent originals.

    Raises:
        ConfigError: They cannot.
    """
    for one in destinations:
        if route.action is Action.STRIP and not one.ae_title:
            raise ConfigError(
                f"destination {one.name!r} has no ae_title, and route {route.name!r} "
                "strips for it",
                hint="A grant names an AE title beside the certificate: give it one.",
            )


def _require_known(who: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ConfigError(
            f"{who}: no destination {unknown[0]!r}",
            hint=f"There are: {', '.join(names) or 'none'}.",
        )
