"""A root key in a file, sealed with a passphrase: for development and small sites.

``root.json`` holds every version of the root key under AES-256-GCM, with a key that
Argon2id (RFC 9106) derives from the passphrase. It is as strong as the passphrase is
long, and as safe as wherever that is kept: an administrator who can read both can read
everything. A site that cannot accept that has a token (:mod:`dicom_node.keys.pkcs11`) or
a service (:mod:`dicom_node.keys.transit`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from dicom_node.durable import write_durably
from dicom_node.errors import KeyFolderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

FILE: Final = "root.json"
_NONCE_SIZE: Final = 12
_VERSION_SIZE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one guess at the passphrase costs (RFC 9106, section 4, second choice)."""

    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4


class PassphraseRoot:
    """The root key of one site, in a folder; see :mod:`dicom_node.keys.provider`."""

    def __init__(
        self, file: Path, cost: Cost, salt: bytes, outer: bytes, keys: dict[int, bytes]
    ) -> None:
        """Keep what :meth:`open` has read or :meth:`make` has made."""
        self._file, self._cost, self._salt = file, cost, salt
        self._outer, self._keys = outer, keys

    @classmethod
    def open(cls, folder: Path, passphrase: Callable[[], bytes]) -> PassphraseRoot:
        """Return the root that is in ``folder``.

        Args:
            folder: Where ``root.json`` lies.
            passphrase: Returns it; called once, now.

        Raises:
            KeyFolderError: There is none, it is damaged, or the passphrase is another.
        """
        file = folder / FILE
        try:
            stored: dict[str, Any] = json.loads(file.read_text("utf-8"))
            cost = Cost(**stored["argon2id"])
            salt = bytes.fromhex(stored["salt"])
            sealed = {
                int(version): bytes.fromhex(text)
                for version, text in stored["root"].items()
            }
        except OSError as error:
            raise KeyFolderError(
                f"{file} cannot be read: {error.strerror}",
                hint="miadmark keys init makes the keys of a site.",
            ) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KeyFolderError(f"{file} is damaged") from error
        outer = _outer(passphrase(), salt, cost)
        try:
            keys = {
                version: _open(outer, text, _root_context(version))
                for version, text in sealed.items()
            }
        except InvalidTag:
            raise KeyFolderError(
                f"the passphrase does not open {file}",
                hint="Or the file was changed: there is a copy in your backup.",
            ) from None
        return cls(file, cost, salt, outer, keys)

    @classmethod
    def make(
        cls,
        folder: Path,
        passphrase: bytes,
        cost: Cost,
        random: Callable[[int], bytes] = os.urandom,
    ) -> PassphraseRoot:
        """Make a fresh root key in ``folder`` and return it."""
        salt = random(16)
        outer = _outer(passphrase, salt, cost)
        root = cls(folder / FILE, cost, salt, outer, {1: random(32)})
        root._write()
        return root

    @property
    def version(self) -> int:
        """Return the newest version."""
        return max(self._keys)

    def settings(self) -> Mapping[str, str]:
        """Return nothing: the file lies in the key folder."""
        return {}

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` sealed under the newest version."""
        sealed = _seal(self._keys[self.version], secret, context)
        return self.version.to_bytes(_VERSION_SIZE) + sealed

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the secret; the inverse of :meth:`wrap`."""
        key = self._keys.get(self.version_of(wrapped))
        if key is None:
            raise KeyFolderError(
                f"a key is sealed under version {self.version_of(wrapped)} of the root "
                "key, which is not there any more"
            )
        try:
            return _open(key, wrapped[_VERSION_SIZE:], context)
        except InvalidTag:
            raise KeyFolderError(
                "a sealed key does not open: it was changed, or is another's"
            ) from None

    def version_of(self, wrapped: bytes) -> int:
        """Return which version sealed it."""
        return int.from_bytes(wrapped[:_VERSION_SIZE])

    def rotate(self) -> int:
        """Make the next version and return its number."""
        self._keys[self.version + 1] = os.urandom(32)
        self._write()
        return self.version

    def forget(self, version: int) -> None:
        """Destroy a version that is not the newest."""
        if version == self.version or version not in self._keys:
            raise KeyFolderError(f"version {version} of the root key cannot go")
        del self._keys[version]
        self._write()

    def change_passphrase(self, passphrase: bytes) -> None:
        """Seal the root key with another passphrase from now on."""
        self._salt = os.urandom(16)
        self._outer = _outer(passphrase, self._salt, self._cost)
        self._write()

    def _write(self) -> None:
        stored = {
            "argon2id": {
                "memory_kib": self._cost.memory_kib,
                "iterations": self._cost.iterations,
                "lanes": self._cost.lanes,
            },
            "salt": self._salt.hex(),
            "root": {
                version: _seal(self._outer, key, _root_context(version)).hex()
                for version, key in self._keys.items()
            },
        }
        write_durably(self._file, json.dumps(stored, indent=1).encode() + b"\n")


def _outer(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    argon = Argon2id(
        salt=salt,
        length=32,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    return argon.derive(passphrase)


def _root_context(version: int) -> bytes:
    return b"miadmark/v1/root" + version.to_bytes(_VERSION_SIZE)


def _seal(key: bytes, secret: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE_SIZE)
    return nonce + AESGCM(key).encrypt(nonce, secret, context)


def _open(key: bytes, sealed: bytes, context: bytes) -> bytes:
    if len(sealed) < _NONCE_SIZE:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], context)
