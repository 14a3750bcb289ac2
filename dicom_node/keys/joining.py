"""How a node comes by the keys of its site: it asks with a key of its own.

The node makes that key, and the root that seals it, and writes a request: its name and
its public key. People compare the fingerprint of that by telephone, the lead admits it,
and its next charter has the site's keys sealed to it. What the node believes then is what
the site's signing key has signed, whose fingerprint people compare the other way.

Until then the folder ``joining`` beside ``keys`` holds::

    joining.json    name of the node, and where its root is
    asking.key      its own key, sealed under the root
"""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dicom_node.durable import make_folder, sync_folder, write_durably
from dicom_node.errors import KeyFolderError
from dicom_node.keys.charter import opened, read, require_signed
from dicom_node.keys.membership import DIGEST, NAME, TAKEN
from dicom_node.keys.ring import KeyEntry, KeyKind, Ring
from dicom_node.keys.roots import open_root
from dicom_node.keys.store import SIZES, exists, put_together
from miadmark_core.sealing.recipients import Identity, Recipient

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from dicom_node.keys.roots import MakeRoot

FOLDER: Final = "joining"
_FILE: Final = "joining.json"
_KEY: Final = "asking.key"
_CONTEXT: Final = b"miadmark/v1/joining"
_MAX_BYTES: Final = 64 * 1024
_LONGEST: Final = 64


@dataclass(frozen=True, slots=True)
class Asking:
    """What a node asks with; public."""

    name: str
    """Printable ASCII without spaces and quotes, at most 64 characters."""
    recipient: Recipient

    def __post_init__(self) -> None:
        """Refuse a name that nobody could type.

        Raises:
            KeyFolderError: It is none.
        """
        is_typed = all(c.isascii() and (c.isalnum() or c in "-_.") for c in self.name)
        if not 1 <= len(self.name) <= _LONGEST or not is_typed:
            raise KeyFolderError(
                f"{self.name[:_LONGEST]!r} is no name of a node",
                hint="Letters, digits, dots, - and _.",
            )

    @property
    def fingerprint(self) -> str:
        """Return what two people compare by telephone."""
        told = b"miadmark/v1/node" + self.name.encode("ascii") + b"\0"
        return hashlib.sha256(told + self.recipient.encoded).hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """Return the request; the inverse of :meth:`read`."""
        key = b64encode(self.recipient.encoded).decode("ascii")
        values = {"version": 1, "name": self.name, "key": key}
        return json.dumps(values, indent=1).encode("ascii") + b"\n"

    @classmethod
    def read(cls, file: Path) -> Asking:
        """Return what a request says.

        Raises:
            KeyFolderError: It cannot be read, or is none.
        """
        try:
            with file.open("rb") as stream:
                values: dict[str, Any] = json.loads(stream.read(_MAX_BYTES))
            key = b64decode(values["key"], validate=True)
            return cls(str(values["name"]), Recipient(key))
        except OSError as error:
            raise KeyFolderError(f"{file} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise KeyFolderError(
                f"{file} is no request to join a site",
                hint="miadmark nodes ask writes one.",
            ) from error


def ask(
    state: Path, name: str, root: MakeRoot, random: Callable[[int], bytes] = os.urandom
) -> Asking:
    """Make a key for a node that is to join a site, and return what to ask with.

    The same again for the same node returns the same.

    Args:
        state: The state folder; it must hold no keys.
        name: Of the node.
        root: Makes the root that this node's keys are to be sealed under.
        random: Returns that many bytes nobody can predict.

    Raises:
        KeyFolderError: It has keys, or has asked under another name.
    """
    if exists(state / "keys"):
        raise KeyFolderError(
            f"{state} has keys already",
            hint="A node joins with a state folder of its own. Objects sealed with those "
            "keys could not be restored with others.",
        )
    folder = state / FOLDER
    if (folder / _FILE).exists():
        asking = _waiting(folder)[0]
        if asking.name != name:
            raise KeyFolderError(f"this node has asked as {asking.name!r}")
        return asking
    secret = random(SIZES[KeyKind.NODE])
    asking = Asking(name, Identity(secret).recipient)
    make_folder(folder)
    folder.chmod(0o700)
    settings, made = root(folder)
    write_durably(folder / _KEY, made.wrap(secret, _CONTEXT))
    values = {"name": name, "root": dict(settings)}
    write_durably(folder / _FILE, json.dumps(values).encode("utf-8"))
    return asking


def join(
    state: Path,
    content: bytes,
    pin: str,
    now: datetime,
    source: str,
    random: Callable[[int], bytes] = os.urandom,
) -> int:
    """Make the keys of a node that has asked, out of a charter; return its number.

    Rules are taken over; grants and sites are by :func:`dicom_node.chartering.take`,
    which finds that this charter was not taken yet.

    Args:
        state: The state folder.
        content: The charter.
        pin: Fingerprint of the site's signing key, as people have compared it.
        now: Aware.
        source: Where the charter came from.
        random: Returns that many bytes nobody can predict.

    Raises:
        KeyFolderError: It is not the site's, not for this node, or nobody has asked.
    """
    folder = state / FOLDER
    if exists(state / "keys"):
        raise KeyFolderError(f"{state} has keys already")
    asking, identity, settings = _waiting(folder)
    signed = read(content, source)
    verifier = signed.newest
    if verifier.id.hex() != pin.strip().lower():
        raise KeyFolderError(
            f"{source} is signed by {verifier.id.hex()}, and not by {pin}",
            hint="Compare with miadmark keys list at the lead, by telephone.",
        )
    require_signed(signed, verifier, source)
    charter = signed.charter
    secrets = opened(signed, asking.name, identity, source)
    own = tuple(
        KeyEntry(kind=kind, version=1, created=now)
        for kind in (KeyKind.NODE, KeyKind.SPOOL)
    )
    secrets[KeyKind.NODE, 1] = identity.seed
    secrets[KeyKind.SPOOL, 1] = random(SIZES[KeyKind.SPOOL])
    ring = Ring(
        tenant=charter.tenant,
        root=settings,
        keys=(*charter.keys, *own),
        suite=charter.suite,
        least_suite=charter.least_suite,
        least_epoch=charter.least_epoch,
        policy=charter.policy,
        # All but a number: so that what is left of the charter is taken next.
        public={NAME: asking.name, TAKEN: "-1", DIGEST: ""},
    )
    root = open_root(folder, settings)
    put_together(folder, root, ring, secrets)
    folder.rename(state / "keys")
    sync_folder(state)
    for file in (_FILE, _KEY):
        (state / "keys" / file).unlink(missing_ok=True)
    return charter.number


def _waiting(folder: Path) -> tuple[Asking, Identity, dict[str, str]]:
    """Return what a node has asked with, its own key, and where its root is."""
    try:
        values = json.loads((folder / _FILE).read_bytes())
        wrapped = (folder / _KEY).read_bytes()
        settings = {str(k): str(v) for k, v in values["root"].items()}
        name = str(values["name"])
    except FileNotFoundError:
        raise KeyFolderError(
            "this node has not asked to join a site", hint="miadmark nodes ask"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeyFolderError(
            f"{folder} is damaged", hint="Delete it, and ask again: miadmark nodes ask."
        ) from error
    identity = Identity(open_root(folder, settings).unwrap(wrapped, _CONTEXT))
    return Asking(name, identity.recipient), identity, settings
