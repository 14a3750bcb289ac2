"""What a key folder says of its keys: which there are, and which rules hold for them.

``ring.json`` holds nothing secret. It carries an HMAC under a key that only the root
opens, so that nobody who can write files but not open keys lowers a floor or brings back
a key that was given up.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from dicom_node.errors import KeyFolderError
from miadmark_core.sealing.signing import TENANT_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE: Final = "ring.json"


class KeyKind(StrEnum):
    """What a key is for."""

    IDENTITY = "identity"
    """Opens what others seal to this site."""
    SIGNING = "signing"
    """Signs records and grants."""
    DERIVATION = "derivation"
    """Marks and UIDs follow from it; it is never another."""
    EPOCH = "epoch"
    """Opens what this site seals itself."""
    SPOOL = "spool"
    """Seals what is on its way; rings of earlier versions have none."""
    NODE = "node"
    """Opens what is sealed to this node alone; made when it is first needed."""


SHARED: Final = (
    KeyKind.IDENTITY,
    KeyKind.SIGNING,
    KeyKind.DERIVATION,
    KeyKind.EPOCH,
)
"""What every node of a site has; the others are each node's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """One key."""

    kind: KeyKind
    version: int
    """From 1 on; the highest is the one in use."""
    created: datetime
    first_sequence: int = 0
    """The first record that can be of it."""
    last_sequence: int | None = None
    """The last one, once there is a newer key."""
    is_destroyed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """All that the file says."""

    tenant: bytes
    root: Mapping[str, str]
    """``kind``, and what it takes to find the root."""
    keys: tuple[KeyEntry, ...]
    suite: int = 2
    """What new records are sealed with."""
    least_suite: int = 1
    """What is opened at least."""
    least_epoch: int = 1
    """Stanzas of older epochs do not count any more."""
    policy: int = 1
    """Counts every change of these rules; written into each record."""
    root_version: int = 1
    """Of the root that every key is sealed under."""
    grant_entries: int = 0
    """How many entries the grants have at least: an older copy has fewer."""
    grant_head: str = ""
    """Digest of the last of them: another history has another."""
    public: Mapping[str, str] = field(default_factory=dict)
    """The public half of the ``recovery`` key in Base64, if there is one; the SHA-256 of
    each site file that was added, under its folder and name; and what
    :mod:`dicom_node.keys.membership` knows of the nodes of this site."""

    def __post_init__(self) -> None:
        """Refuse a tenant of another length."""
        if len(self.tenant) != TENANT_SIZE:
            raise ValueError(f"a tenant of {len(self.tenant)} bytes")

    def entry(self, kind: KeyKind, version: int) -> KeyEntry:
        """Return one key."""
        return next(k for k in self.keys if (k.kind, k.version) == (kind, version))

    def newest(self, kind: KeyKind) -> KeyEntry:
        """Return the key of that kind that is in use."""
        return max((k for k in self.keys if k.kind is kind), key=_version)

    def of(self, kind: KeyKind) -> list[KeyEntry]:
        """Return the keys of that kind that still exist, newest first."""
        kept = [k for k in self.keys if k.kind is kind and not k.is_destroyed]
        return sorted(kept, key=lambda k: -k.version)

    def with_next(self, kind: KeyKind, now: datetime, sequence: int) -> Ring:
        """Return the ring with a new key of that kind in use, from ``sequence`` on."""
        ended = max(
            (k for k in self.keys if k.kind is kind), key=_version, default=None
        )
        added = KeyEntry(
            kind=kind,
            version=1 if ended is None else ended.version + 1,
            created=now,
            first_sequence=sequence,
        )
        kept = [
            # Until when a signing key is believed is settled once nobody signs with it.
            replace(k, last_sequence=sequence - 1)
            if k is ended and kind is not KeyKind.SIGNING
            else k
            for k in self.keys
        ]
        return replace(self, keys=(*kept, added))

    def with_last(self, kind: KeyKind, version: int, last: int) -> Ring:
        """Return the ring with a key that is believed up to record ``last``."""
        keys = (
            replace(k, last_sequence=last)
            if (k.kind, k.version) == (kind, version)
            else k
            for k in self.keys
        )
        return replace(self, keys=tuple(keys))

    def without(self, kind: KeyKind, version: int) -> Ring:
        """Return the ring with a key marked as destroyed."""
        keys = (
            replace(k, is_destroyed=True)
            if (k.kind, k.version) == (kind, version)
            else k
            for k in self.keys
        )
        return replace(self, keys=tuple(keys))

    def to_bytes(self, key: bytes) -> bytes:
        """Return the file, authenticated with ``key``; inverse of :meth:`from_bytes`."""
        values = asdict(self) | {
            "tenant": self.tenant.hex(),
            "keys": [asdict(k) | {"created": k.created.isoformat()} for k in self.keys],
        }
        return _canonical(values | {"hmac": _mac(values, key)})

    @classmethod
    def from_bytes(cls, encoded: bytes, source: str) -> tuple[Ring, Mapping[str, Any]]:
        """Return what the file says, and its values for :func:`require_mac`.

        Raises:
            KeyFolderError: It is damaged.
        """
        try:
            values: dict[str, Any] = json.loads(encoded)
            known = {name: values[name] for name in cls.__dataclass_fields__}
            known["tenant"] = bytes.fromhex(known["tenant"])
            known["keys"] = tuple(
                KeyEntry(
                    **k
                    | {
                        "kind": KeyKind(k["kind"]),
                        "created": datetime.fromisoformat(k["created"]),
                    }
                )
                for k in known["keys"]
            )
            ring = cls(**known)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise KeyFolderError(
                f"{source} is damaged", hint="There is a copy in your backup."
            ) from error
        return ring, values


def _version(entry: KeyEntry) -> int:
    return entry.version


def require_mac(values: Mapping[str, Any], key: bytes, source: str) -> None:
    """Return if the values are those that this site wrote.

    Raises:
        KeyFolderError: They are not.
    """
    rest = {name: value for name, value in values.items() if name != "hmac"}
    said = str(values.get("hmac", "")).encode("utf-8")
    if not hmac.compare_digest(said, _mac(rest, key).encode("ascii")):
        raise KeyFolderError(
            f"{source} was changed by somebody who cannot open the keys",
            hint="Take it from your backup, and tell whoever looks after security.",
        )


def _mac(values: Mapping[str, Any], key: bytes) -> str:
    return hmac.digest(key, b"miadmark/v1/ring" + _canonical(values), "sha256").hex()


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode("utf-8") + b"\n"
