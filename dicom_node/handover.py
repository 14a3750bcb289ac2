"""A folder with all that a node still owes, sealed to another node of its site.

::

    handover.json        what is in it: signed by the site, sealed to the other node
    RANDOM.sealed        files: instances, marked objects, a copy of the ledger, ...

    handover.json = {"body": Base64, "signature": Base64}
    body          = JSON: version, tenant, handover, from, to, epochs, wrapped, sealed

One key is drawn for each; it is sealed to the other node (HPKE, the hybrid suite), and
files and list are sealed with it (AES-256-GCM, :mod:`dicom_node.sealed_stream`). The list
names each file, and is written last: a folder without it is none. What an instance or a
job is, is not known here.
"""

from __future__ import annotations

import hmac
import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicom_node.durable import make_folder, sync_folder, write_durably
from dicom_node.errors import KeyFolderError, SpoolError
from dicom_node.sealed_file import SUFFIX, SealedFile, for_the_owner
from dicom_node.sealed_stream import Sealing
from dicom_node.spool_keys import SIZE, SpoolKey, no_key
from miadmark_core.errors import DamagedSealError
from miadmark_core.sealing.suites import HYBRID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from dicom_node.keys.keyring import Keyring
    from dicom_node.mapped import Buffer
    from miadmark_core.sealing.recipients import Identity, Recipient

LIST: Final = "handover.json"
_OWNER: Final = "handover.id"
_VERSION: Final = 1
_NONCE: Final = bytes(12)
"""Of the list: a key is drawn for one folder, and files have keys of their own."""
_LABEL: Final = b"miadmark/v1/handover/list "


class Epochs(NamedTuple):
    """Which epochs the records of a node are of."""

    least: int
    newest: int


@dataclass(frozen=True, slots=True)
class _Key:
    """The one key of a hand-over, as files ask for it."""

    key: SpoolKey

    def newest(self) -> SpoolKey:
        return self.key

    def of(self, version: int, key_id: bytes) -> SpoolKey:
        if (version, key_id) != (self.key.version, self.key.id):
            raise no_key(version)
        return self.key


class Packing:
    """A folder that is being written."""

    def __init__(
        self, folder: Path, handover: str, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Begin; what an earlier try has left of the same is deleted.

        Args:
            folder: New, or of an earlier try.
            handover: What it is known by.
            random: Returns that many bytes nobody can predict.

        Raises:
            SpoolError: Something else is in it.
        """
        self.folder, self._handover, self._random = folder, handover, random
        self._secret = random(SIZE)
        make_folder(folder)
        folder.chmod(0o700)
        there = sorted(file.name for file in folder.iterdir())
        if there and not _is_of(folder, handover):
            raise SpoolError(f"{folder} is not empty", hint="Name a new folder.")
        write_durably(folder / _OWNER, handover.encode("ascii"))
        for name in there:
            if name != _OWNER:
                (folder / name).unlink()

    def add(self, content: Iterable[Buffer]) -> str:
        """Write a file, and return its name; durable with the list."""
        name = f"{self._random(16).hex()}{SUFFIX}"
        with open(self.folder / name, "xb", opener=for_the_owner) as stream:
            sealing = Sealing(name, SpoolKey(1, self._secret), stream.write)
            for piece in content:
                sealing.write(piece)
            sealing.finish()
            stream.flush()
            os.fsync(stream.fileno())
        return name

    def finish(
        self, values: Mapping[str, Any], keyring: Keyring, to: str, recipient: Recipient
    ) -> None:
        """Write what is in it: it is whole when this returns.

        Args:
            values: The list; JSON.
            keyring: Of the node that owes it.
            to: Name of the other node.
            recipient: That node's own key.
        """
        ring = keyring.ring
        head = {
            "version": _VERSION,
            "tenant": ring.tenant.hex(),
            "handover": self._handover,
            "from": keyring.nodes.name,
            "to": to,
            "epochs": [ring.least_epoch, keyring.epochs.newest().version],
        }
        bound = _bound(head)
        sealed = AESGCM(self._list_key()).encrypt(_NONCE, _canonical(values), bound)
        wrapped = recipient.wrap(HYBRID, self._secret, bound).body
        body = _canonical(head | {"wrapped": _text(wrapped), "sealed": _text(sealed)})
        signature = keyring.signer().sign(HYBRID, "handover", body)
        sync_folder(self.folder)
        outer = {"body": _text(body), "signature": _text(signature)}
        write_durably(self.folder / LIST, _canonical(outer))

    def _list_key(self) -> bytes:
        return _list_key(self._secret)


class Unpacked(NamedTuple):
    """A folder that was found to be for this node."""

    folder: Path
    handover: str
    came_from: str
    epochs: Epochs
    values: Mapping[str, Any]
    key: SpoolKey

    def file(self, name: str) -> SealedFile:
        """Return a file of it."""
        stem, _, ending = name.partition(".")
        if len(stem) != 32 or not stem.isalnum() or f".{ending}" != SUFFIX:
            raise SpoolError(f"{self.folder} names a file {name!r} that is none of it")
        return SealedFile(self.folder / name, _Key(self.key))


def unpack(folder: Path, keyring: Keyring, identity: Identity) -> Unpacked:
    """Return what is in a folder, once that is believed.

    Args:
        folder: Where it lies.
        keyring: Of this node.
        identity: This node's own.

    Raises:
        SpoolError: It is no whole hand-over.
        KeyFolderError: It is not of this site, or not for this node.
    """
    try:
        outer = json.loads((folder / LIST).read_bytes())
        body, signature = _bytes(outer["body"]), _bytes(outer["signature"])
        head = json.loads(body)
        wrapped, sealed = _bytes(head.pop("wrapped")), _bytes(head.pop("sealed"))
        to, tenant = str(head["to"]), bytes.fromhex(head["tenant"])
        version, epochs = int(head["version"]), Epochs(*map(int, head["epochs"]))
        handover, came_from = str(head["handover"]), str(head["from"])
    except FileNotFoundError:
        raise SpoolError(
            f"{folder} is no whole hand-over",
            hint=f"{LIST} is written last: pack it again (miadmark drain pack).",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpoolError(f"{folder / LIST} cannot be read") from error
    signers = keyring.verifiers().values()
    is_signed = any(v.has_signed(HYBRID, "handover", signature, body) for v in signers)
    if not is_signed or tenant != keyring.ring.tenant or version != _VERSION:
        raise KeyFolderError(
            f"{folder} is not what a node of this site has packed",
            hint="It was changed, or this node has an older charter than the other.",
        )
    if to != keyring.nodes.name:
        raise KeyFolderError(f"{folder} is for {to}, and this is {keyring.nodes.name}")
    try:
        secret = identity.unwrap(HYBRID, wrapped, _bound(head))
        plain = AESGCM(_list_key(secret)).decrypt(_NONCE, sealed, _bound(head))
    except (DamagedSealError, InvalidTag):
        raise KeyFolderError(f"{folder} does not open with this node's key") from None
    key = SpoolKey(1, secret)
    return Unpacked(folder, handover, came_from, epochs, json.loads(plain), key)


def receipt(values: Mapping[str, Any], keyring: Keyring) -> bytes:
    """Return a node's word for what it has taken; signed."""
    body = _canonical({**values, "tenant": keyring.ring.tenant.hex()})
    signature = keyring.signer().sign(HYBRID, "receipt", body)
    return _canonical({"body": _text(body), "signature": _text(signature)})


def receipt_in(content: bytes, keyring: Keyring) -> dict[str, Any]:
    """Return what a receipt says; the inverse of :func:`receipt`.

    Raises:
        KeyFolderError: No node of this site has given it.
    """
    try:
        outer = json.loads(content)
        body, signature = _bytes(outer["body"]), _bytes(outer["signature"])
        values: dict[str, Any] = json.loads(body)
        tenant = bytes.fromhex(values["tenant"])
    except (ValueError, KeyError, TypeError) as error:
        raise KeyFolderError("it is no receipt") from error
    signers = keyring.verifiers().values()
    if tenant != keyring.ring.tenant or not any(
        v.has_signed(HYBRID, "receipt", signature, body) for v in signers
    ):
        raise KeyFolderError("no node of this site has given this receipt")
    return values


def _is_of(folder: Path, handover: str) -> bool:
    try:
        return (folder / _OWNER).read_text("ascii") == handover
    except (OSError, UnicodeDecodeError):
        return False


def _list_key(secret: bytes) -> bytes:
    return hmac.digest(secret, _LABEL, "sha256")


def _bound(head: Mapping[str, Any]) -> bytes:
    return HYBRID.label("handover") + _canonical(head)


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode("utf-8")


def _text(content: bytes) -> str:
    return b64encode(content).decode("ascii")


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)
