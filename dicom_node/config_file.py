"""The file that a configuration is read from: TOML, every field of it checked.

A field that is not known is an error: a misspelt rule must not become a rule that is not
there.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dicom_node.auditing import Auditing
from dicom_node.breaker import Breaker
from dicom_node.chartered import Following
from dicom_node.condition import Condition
from dicom_node.config import (
    Cluster,
    Config,
    Listener,
    ReleaseDesk,
    RemoteDesk,
    Retry,
)
from dicom_node.destination import Destination, Kind
from dicom_node.emergency import BreakGlass
from dicom_node.errors import ConfigError
from dicom_node.hatch import Hatch
from dicom_node.listening import Guarding, Listening, Peer, UnknownPeers
from dicom_node.log import Format, Logging
from dicom_node.marking import Profile, WeakMarks
from dicom_node.notifying import Notifying, Security
from dicom_node.pool import Choose, Pool
from dicom_node.queueing import Queueing
from dicom_node.routing import Action, Route, Unmarked
from dicom_node.storage import OtherBytes, Storage
from dicom_node.syntaxes import Syntax
from dicom_node.timing import Complete, Late
from dicom_node.watching import Metrics, Web
from miadmark_core.mode import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from enum import StrEnum
    from pathlib import Path

T = TypeVar("T")


def load(path: Path) -> Config:
    """Return the configuration in ``path``, as :func:`read` does."""
    return read(content_of(path), path)


def content_of(path: Path) -> bytes:
    """Return what a file says, to be read now or by another process later.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def read(content: bytes, path: Path) -> Config:
    """Return the configuration that a file had; relative paths start at its folder.

    Args:
        content: What it said.
        path: Where it is.

    Raises:
        ConfigError: It says something that cannot be done.
    """
    try:
        tables = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply to be read") from error
    try:
        return _config(tables, path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        # Whoever reads a value may object to it in a way of its own.
        raise ConfigError(
            f"{path}: a value cannot be used: {error}",
            hint="An address, a number or a path in it is not well-formed.",
        ) from error


def _config(tables: Mapping[str, Any], path: Path) -> Config:
    unknown = tables.keys() - _TABLES
    if unknown:
        raise ConfigError(f"[{unknown.pop()}] is not known")
    if "listener" in tables and not {"bind", "port"}.isdisjoint(tables.get("node", {})):
        raise ConfigError(
            "bind and port are in [node], and there are listeners too",
            hint="Each [[listener]] has its own; take them out of [node].",
        )
    node = _made(Listener, tables.get("node", {}), path.parent.absolute())
    destinations, routes = _tables(tables, "destination"), _tables(tables, "route")
    release, cluster = tables.get("release"), tables.get("cluster")
    return Config(
        node=node,
        destinations=tuple(_made(Destination, t, path.parent) for t in destinations),
        routes=tuple(_made(Route, t, path.parent) for t in routes),
        pools=tuple(_made(Pool, t, path.parent) for t in _tables(tables, "pool")),
        queue=_made(Queueing, tables.get("queue", {}), path.parent.absolute()),
        breaker=_made(Breaker, tables.get("breaker", {}), path.parent),
        retry=_made(Retry, tables.get("retry", {}), path.parent),
        cluster=None if cluster is None else _made(Cluster, cluster, path.parent),
        storage=_made(Storage, tables.get("storage", {}), path.parent),
        audit=_made(Auditing, tables.get("audit", {}), path.parent),
        log=_made(Logging, tables.get("log", {}), path.parent),
        notify=tuple(
            _made(Notifying, t, path.parent) for t in _tables(tables, "notify")
        ),
        release=None if release is None else _made(ReleaseDesk, release, path.parent),
        desks=tuple(_made(RemoteDesk, t, path.parent) for t in _tables(tables, "desk")),
        guard=_made(Guarding, tables.get("guard", {}), path.parent),
        listeners=tuple(
            _made(Listening, t, path.parent) for t in _tables(tables, "listener")
        ),
        peers=tuple(_made(Peer, t, path.parent) for t in _tables(tables, "peer")),
        break_glass=_made(BreakGlass, tables.get("break_glass", {}), path.parent),
        hatches=tuple(_made(Hatch, t, path.parent) for t in _tables(tables, "hatch")),
        metrics=_optional(Metrics, tables, path.parent),
        web=_optional(Web, tables, path.parent),
        charter=_charter(tables, path.parent),
    )


def _charter(tables: Mapping[str, Any], folder: Path) -> Following | None:
    """Return where the charter is, if the table says so; a file starts at ``folder``."""
    table = tables.get("charter")
    if table is None:
        return None
    made = _made(Following, table, folder)
    if made.source and "://" not in made.source:
        return replace(made, source=str(folder / made.source))
    return made


def _optional(kind: type[T], tables: Mapping[str, Any], folder: Path) -> T | None:
    """Return what a table says that has the name of its kind; None if there is none."""
    table = tables.get(kind.__name__.lower())
    return None if table is None else _made(kind, table, folder)


def _tables(tables: Mapping[str, Any], name: str) -> list[Any]:
    found = tables.get(name, [])
    if not isinstance(found, list):
        raise ConfigError(f"{name} is not a list of tables", hint=f"Write [[{name}]].")
    return found


_TABLES: Final = frozenset(
    {
        "node",
        "guard",
        "listener",
        "peer",
        "destination",
        "pool",
        "breaker",
        "route",
        "retry",
        "cluster",
        "storage",
        "break_glass",
        "metrics",
        "web",
        "charter",
        "release",
        "desk",
        "audit",
        "log",
        "notify",
        "hatch",
        "queue",
    }
)
_PATHS: Final = frozenset(
    {
        "state",
        "folder",
        "weights",
        "tls_ca",
        "certificate",
        "key",
        "client_ca",
        "crl",
        "ca",
        "token_file",
        "checkpoints",
        "publish",
        "secret_file",
        "password_file",
        "shared",
        "oidc_ca",
        "oidc_secret_file",
    }
)
_ENUMS: Final[Mapping[str, type[StrEnum]]] = {
    "action": Action,
    "kind": Kind,
    "choose": Choose,
    "not_images": Unmarked,
    "other_pixels": Unmarked,
    "profile": Profile,
    "mode": Mode,
    "weak_marks": WeakMarks,
    "other_bytes": OtherBytes,
    "unknown_peers": UnknownPeers,
    "security": Security,
    "format": Format,
    "study": Complete,
    "late": Late,
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
            values[key] = _path(key, value, folder)
        elif key in _ENUMS:
            values[key] = _member(key, value)
        elif key in {"where", "priority_where"}:
            values[key] = _conditions(key, value)
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


def _path(key: str, value: object, folder: Path) -> Path:
    text = str(value)
    if "\0" in text:
        raise ConfigError(
            f"{key} = {text!r}", hint="No path has a NUL character in it."
        )
    return folder / text


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
    if kind in {"int", "float"} and not abs(value) <= _most(key):  # type: ignore[arg-type]
        raise ConfigError(
            f"{key} = {value!r} is no number that can be used",
            hint=f"At most {_most(key):.0f}.",
        )
    return value


_LONGEST: Final = {
    "s": 2_000_000,
    "min": 50_000_000,
    "minutes": 50_000_000,
    "h": 876_000,
    "hours": 876_000,
    "days": 36_500,
}
"""Of times, by the unit that a field's name ends with: a hundred years, or what the
system can wait for."""


def _most(key: str) -> float:
    """Return the largest number that a field takes."""
    return _LONGEST.get(key.rpartition("_")[2], 1e15)


def _member(key: str, value: object) -> StrEnum:
    kind = _ENUMS[key]
    try:
        return kind(str(value))
    except ValueError as error:
        raise ConfigError(
            f"{key} = {value!r}", hint=f"One of: {', '.join(kind)}."
        ) from error


def _conditions(key: str, table: object) -> tuple[Condition, ...]:
    if not isinstance(table, dict):
        raise ConfigError(
            f"{key} = {table!r}", hint='A table: { StationName = ["CT1", "CT2-*"] }.'
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
