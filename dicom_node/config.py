"""The node's configuration: one TOML file, read once, never changed afterwards.

Every field is checked when it is read, and a field that is not known is an error: a
misspelt rule must not become a rule that is not there.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dicom_node.addressing import check_ae_title, check_port
from dicom_node.condition import Condition
from dicom_node.errors import ConfigError
from dicom_node.listening import Guarding, Listening, Peer, UnknownPeers
from dicom_node.marking import Marking, Profile, WeakMarks
from dicom_node.storage import OtherBytes, Storage
from dicom_node.syntaxes import DEFAULT, Syntax
from miadmark_core.mode import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


class Action(StrEnum):
    """What a route does to an instance."""

    MARK = "mark"
    """Sends it marked; what cannot be marked is held."""
    STRIP = "strip"
    """Takes a mark of ours off, for a destination that holds a grant."""
    PASS = "pass"  # noqa: S105
    """Sends it as it came."""


class Unmarked(StrEnum):
    """What a marking route does with an object that it does not mark."""

    PASS = "pass"  # noqa: S105
    """Sends it as it came; the audit has a line first."""
    HOLD = "hold"
    """Keeps it until a person decides."""
    DROP = "drop"
    """Settles it unsent; the audit has a line first."""


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

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for title in (self.ae_title, *self.called_ae_titles):
            check_ae_title("node", title)
        check_port("node", self.port)
        if not 1 <= self.receivers <= 64:
            raise ConfigError(f"node: receivers {self.receivers}", hint="1 to 64.")
        if self.max_associations < 1:
            raise ConfigError(f"node: max_associations {self.max_associations}")

    @property
    def marking(self) -> Marking:
        """Return how this node marks."""
        return Marking(profile=self.profile, mode=self.mode, weak_marks=self.weak_marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where instances are sent."""

    name: str
    """How routes call it."""
    ae_title: str
    """The called AE title."""
    host: str
    port: int = 11112
    tls_ca: Path | None = None
    """Certificates that its own must be signed by, PEM; without it, no TLS."""
    tls_hostname: str = ""
    """The name in its certificate, if it is not ``host``."""
    transfer_syntaxes: tuple[Syntax, ...] = DEFAULT
    """What objects may be sent in, best first; the first that it accepts is taken."""
    timeout_s: float = 30.0
    """For the association and for each message, in seconds."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        check_ae_title(f"destination {self.name!r}", self.ae_title)
        check_port(f"destination {self.name!r}", self.port)
        if not self.transfer_syntaxes:
            raise ConfigError(
                f"destination {self.name!r}: transfer_syntaxes is empty",
                hint=f"Some of: {', '.join(Syntax)}.",
            )

    @property
    def address(self) -> str:
        """Return ``host:port``."""
        return f"{self.host}:{self.port}"


_SILENT: Final = (Unmarked.PASS, Unmarked.HOLD, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Which instances go where, and what is done to them. Empty matches all."""

    name: str
    destination: str
    action: Action
    not_images: Unmarked = Unmarked.PASS
    """Of a marking route: what becomes of objects without a picture. A study without its
    reports, measurements and documents is not the study, there is nothing in them to
    mark, and the audit names each one that passes; so they pass unless it says
    otherwise. (A PDF may hold pictures all the same.)"""
    other_pixels: Unmarked = Unmarked.HOLD
    """Likewise of pictures in a form that can carry no mark: 1-bit, 32-bit, float,
    pixels kept elsewhere, too few grey levels. A classifier might read them, so nothing
    of the kind leaves before somebody has said so."""
    mark_quantities: bool = False
    """Whether segmentations, parametric maps, dose and PET in SUV are marked as pictures
    are, rather than be ``not_images``."""
    calling_ae_titles: tuple[str, ...] = ()
    called_ae_titles: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    """What any other attribute must be; see :mod:`dicom_node.condition`."""
    direct: tuple[str, ...] = ()
    """AE titles that open what this route marks without asking, by direct grants."""
    keep_codestream: bool = False
    """Whether a marking route keeps what compressed originals came in, sealed, so that
    they come back here as they were, byte for byte."""
    purpose: str = "treatment"
    """What originals are released for; a grant names those it is good for."""
    insecure: bool = False
    """Whether originals may go without TLS, by a grant to the address."""
    listing: bool = False
    """Whether a list of what was sent marked of a study follows it."""
    listing_after_s: float = 60.0
    """How long nothing of a study is sent before the list is."""
    accept_renamed: bool = False
    """Whether an object that an archive has renamed gives back its original."""

    def __post_init__(self) -> None:
        """Refuse what would say something of a route that it cannot do."""
        said = (self.not_images, self.other_pixels, self.mark_quantities)
        if self.action is not Action.MARK and said != _SILENT:
            raise ConfigError(
                f"route {self.name!r}: not_images, other_pixels and mark_quantities are "
                "for routes that mark"
            )
        if self.listing and self.action is not Action.MARK:
            raise ConfigError(
                f"route {self.name!r}: listing is for routes that mark",
                hint="It lists what was sent marked.",
            )
        if self.keep_codestream and self.action is not Action.MARK:
            raise ConfigError(
                f"route {self.name!r}: keep_codestream is for routes that mark",
                hint="Where marks are taken off, what was kept is found without it.",
            )
        if self.direct and self.action is not Action.MARK:
            raise ConfigError(
                f"route {self.name!r}: direct is for routes that mark",
                hint="It says who opens what is marked without asking.",
            )
        if self.action is not Action.STRIP and (self.insecure or self.accept_renamed):
            raise ConfigError(
                f"route {self.name!r}: insecure and accept_renamed are for routes that "
                "strip"
            )


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
    retry: Retry = field(default_factory=Retry)
    storage: Storage = field(default_factory=Storage)
    release: ReleaseDesk | None = None
    desks: tuple[RemoteDesk, ...] = ()
    guard: Guarding = field(default_factory=Guarding)
    listeners: tuple[Listening, ...] = ()
    """Where instances come in; on ``bind`` and ``port`` of the node if none is given."""
    peers: tuple[Peer, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that are used twice or not at all."""
        names = [d.name for d in self.destinations]
        for kind, used in (
            ("destination", names),
            ("route", [r.name for r in self.routes]),
            ("peer", [p.ae_title for p in self.peers]),
            ("listener", [f"{d.bind}:{d.port}" for d in self.listeners if d.port]),
        ):
            twice = {name for name in used if used.count(name) > 1}
            if twice:
                raise ConfigError(f"{kind} {twice.pop()!r} is there twice")
        for route in self.routes:
            if route.destination not in names:
                raise ConfigError(
                    f"route {route.name!r}: no destination {route.destination!r}",
                    hint=f"There are: {', '.join(names) or 'none'}.",
                )

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
        tags = {c.path[0] for route in self.routes for c in route.where}
        # Without the character set, names would be read as something else.
        return frozenset(tags | {_CHARACTER_SET} if tags else ())

    @property
    def passed(self) -> frozenset[str]:
        """Return the names of routes that send instances as they came."""
        return frozenset(r.name for r in self.routes if r.action is Action.PASS)

    def destination_of(self, route: Route) -> Destination:
        """Return where ``route`` leads."""
        return next(d for d in self.destinations if d.name == route.destination)

    def route(self, name: str) -> Route | None:
        """Return the route of that name, if it is still there."""
        return next((r for r in self.routes if r.name == name), None)


def load(path: Path) -> Config:
    """Return the configuration in ``path``; relative paths in it start at its folder.

    Raises:
        ConfigError: It cannot be read, or says something that cannot be done.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    unknown = tables.keys() - _TABLES
    if unknown:
        raise ConfigError(f"{path}: [{unknown.pop()}] is not known")
    if "listener" in tables and not {"bind", "port"}.isdisjoint(tables.get("node", {})):
        raise ConfigError(
            f"{path}: bind and port are in [node], and there are listeners too",
            hint="Each [[listener]] has its own; take them out of [node].",
        )
    try:
        node = _made(Listener, tables.get("node", {}), path.parent.absolute())
        destinations, routes = _tables(tables, "destination"), _tables(tables, "route")
        release = tables.get("release")
        return Config(
            node=node,
            destinations=tuple(
                _made(Destination, t, path.parent) for t in destinations
            ),
            routes=tuple(_made(Route, t, path.parent) for t in routes),
            retry=_made(Retry, tables.get("retry", {}), path.parent),
            storage=_made(Storage, tables.get("storage", {}), path.parent),
            release=None
            if release is None
            else _made(ReleaseDesk, release, path.parent),
            desks=tuple(
                _made(RemoteDesk, t, path.parent) for t in _tables(tables, "desk")
            ),
            guard=_made(Guarding, tables.get("guard", {}), path.parent),
            listeners=tuple(
                _made(Listening, t, path.parent) for t in _tables(tables, "listener")
            ),
            peers=tuple(_made(Peer, t, path.parent) for t in _tables(tables, "peer")),
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error


def _tables(tables: Mapping[str, Any], name: str) -> list[Any]:
    found = tables.get(name, [])
    if not isinstance(found, list):
        raise ConfigError(f"{name} is not a list of tables", hint=f"Write [[{name}]].")
    return found


_CHARACTER_SET: Final = 0x00080005

_TABLES: Final = frozenset(
    {
        "node",
        "guard",
        "listener",
        "peer",
        "destination",
        "route",
        "retry",
        "storage",
        "release",
        "desk",
    }
)
_PATHS: Final = frozenset(
    {"state", "weights", "tls_ca", "certificate", "key", "client_ca", "crl", "ca"}
)
_ENUMS: Final[Mapping[str, type[StrEnum]]] = {
    "action": Action,
    "not_images": Unmarked,
    "other_pixels": Unmarked,
    "profile": Profile,
    "mode": Mode,
    "weak_marks": WeakMarks,
    "other_bytes": OtherBytes,
    "unknown_peers": UnknownPeers,
}


def _made(kind: type[T], table: Mapping[str, Any], folder: Path) -> T:
    if not isinstance(table, dict):
        raise ConfigError(f"{kind.__name__.lower()} is not a table")
    known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(
                f"{kind.__name__.lower()}: {key} is not known",
                hint=f"Known: {', '.join(sorted(known))}.",
            )
        if key in _PATHS:
            values[key] = folder / str(value)
        elif key in _ENUMS:
            values[key] = _member(key, value)
        elif key == "where":
            values[key] = _conditions(value)
        elif key == "transfer_syntaxes":
            values[key] = _syntaxes(_checked(key, value, known[key]))
        else:
            values[key] = _checked(key, value, known[key])
    if kind is Listener and "state" not in values:
        values["state"] = folder / "miadmark-state"
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{kind.__name__.lower()}: {error}") from error


def _checked(key: str, value: object, kind: str) -> Any:
    """Return ``value`` if it is of the kind that the field has."""
    if kind.startswith("tuple"):
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ConfigError(
                f"{key} = {value!r}", hint='A list of texts: ["CT", "MR"].'
            )
        return tuple(value)
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
    }
    if not isinstance(value, kinds.get(kind, (str,))) or (
        isinstance(value, bool) and kind != "bool"
    ):
        raise ConfigError(f"{key} = {value!r}", hint=f"It takes a {kind}.")
    return value


def _member(key: str, value: object) -> StrEnum:
    kind = _ENUMS[key]
    try:
        return kind(str(value))
    except ValueError as error:
        raise ConfigError(
            f"{key} = {value!r}", hint=f"One of: {', '.join(kind)}."
        ) from error


def _conditions(table: object) -> tuple[Condition, ...]:
    if not isinstance(table, dict):
        raise ConfigError(
            f"where = {table!r}", hint='A table: { StationName = ["CT1", "CT2-*"] }.'
        )
    return tuple(
        Condition.of(str(name), _checked(str(name), patterns, "tuple"))
        for name, patterns in table.items()
    )


def _syntaxes(names: Iterable[str]) -> tuple[Syntax, ...]:
    try:
        return tuple(dict.fromkeys(Syntax(name) for name in names))
    except ValueError as error:
        raise ConfigError(
            f"transfer_syntaxes: {error}",
            hint=f"Lossless ones only: {', '.join(Syntax)}. What came lossy leaves as it "
            "came, by as-is; nothing is made lossy.",
        ) from error
