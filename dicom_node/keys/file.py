"""Keys in a folder: one file a key, readable by its owner only.

Layout::

    identity.pem       X25519, PKCS #8: opens records
    signing.pem        Ed25519, PKCS #8: signs them
    derivation.key     32 bytes in hexadecimal: marks and UIDs follow from it
    recipients/*.site  public files of sites that records are sealed to
    trusted/*.site     public files of sites whose records are opened

A *site file* is what two sites exchange, both public keys in one TOML file. Private keys
are not encrypted here: the folder's protection is the file system's.
"""

from __future__ import annotations

import base64
import hmac
import os
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)

from dicom_node.errors import KeyFolderError
from miadmark_core.sealing.recipients import Identity, Recipient
from miadmark_core.sealing.signing import Signer, TrustedSigners, signer_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_IDENTITY: Final = "identity.pem"
_SIGNING: Final = "signing.pem"
_DERIVATION: Final = "derivation.key"


@dataclass(frozen=True, slots=True)
class Site:
    """What one site tells another: public keys only."""

    name: str
    recipient: Recipient
    verifier: Ed25519PublicKey

    @property
    def fingerprint(self) -> str:
        """Return what two people compare by telephone."""
        return signer_id(self.verifier).hex()

    def to_text(self) -> str:
        """Return the site file; the inverse of :meth:`from_text`."""
        recipient = base64.b64encode(self.recipient.public_key.public_bytes_raw())
        verifier = base64.b64encode(self.verifier.public_bytes_raw())
        name = self.name.replace("\\", "").replace('"', "'")
        return (
            "# MIAD-MARK site file: public keys, nothing secret.\n"
            f"# Compare by telephone: {self.fingerprint}\n"
            f'name = "{name}"\n'
            f'recipient = "{recipient.decode()}"\n'
            f'verifier = "{verifier.decode()}"\n'
        )

    @classmethod
    def from_text(cls, text: str, source: str) -> Site:
        """Return the site that a site file describes.

        Raises:
            KeyFolderError: It is no site file.
        """
        try:
            entries = tomllib.loads(text)
            return cls(
                str(entries["name"]),
                Recipient(
                    X25519PublicKey.from_public_bytes(
                        base64.b64decode(entries["recipient"], validate=True)
                    )
                ),
                Ed25519PublicKey.from_public_bytes(
                    base64.b64decode(entries["verifier"], validate=True)
                ),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise KeyFolderError(
                f"{source} is no site file",
                hint="miadmark keys export-recipient writes one.",
            ) from error


class KeyFolder:
    """The keys of one site, in a folder; see :mod:`dicom_node.keys.provider`."""

    def __init__(self, folder: Path) -> None:
        """Read the keys.

        Raises:
            KeyFolderError: There are none, or one of them cannot be read.
        """
        self.folder = folder
        identity = read_private(folder / _IDENTITY)
        signing = read_private(folder / _SIGNING)
        if not isinstance(identity, X25519PrivateKey) or not isinstance(
            signing, Ed25519PrivateKey
        ):
            raise KeyFolderError(f"{folder} holds keys of another kind")
        self._identity, self._signer = Identity(identity), Signer(signing)
        try:
            self._derivation = bytes.fromhex((folder / _DERIVATION).read_text().strip())
        except (OSError, ValueError) as error:
            raise KeyFolderError(f"{folder / _DERIVATION} cannot be read") from error
        if len(self._derivation) != 32:
            raise KeyFolderError(f"{folder / _DERIVATION} does not hold 32 bytes")

    @classmethod
    def make(
        cls, folder: Path, random: Callable[[int], bytes] = os.urandom
    ) -> KeyFolder:
        """Make fresh keys in ``folder`` and return them.

        Raises:
            KeyFolderError: There are keys already, or the folder is not writable.
        """
        if (folder / _IDENTITY).exists() or (folder / _SIGNING).exists():
            raise KeyFolderError(
                f"{folder} holds keys already",
                hint="Objects sealed with them could not be restored with others. "
                "Choose another folder.",
            )
        try:
            # Whole or not at all: half a set of keys opens nothing.
            aside = folder.with_name(f".{folder.name}.{os.getpid()}")
            aside.mkdir(mode=0o700, parents=True)
            for part in ("recipients", "trusted"):
                (aside / part).mkdir()
            _write_secret(aside / _IDENTITY, _pem(X25519PrivateKey.generate()))
            _write_secret(aside / _SIGNING, _pem(Ed25519PrivateKey.generate()))
            _write_secret(aside / _DERIVATION, random(32).hex().encode() + b"\n")
            aside.rename(folder)
            _sync(folder)
            _sync(folder.parent)
        except OSError as error:
            raise KeyFolderError(
                f"{folder} cannot be written: {error.strerror}"
            ) from error
        return cls(folder)

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Say whether ``folder`` holds keys."""
        return (folder / _IDENTITY).exists()

    def site(self, name: str) -> Site:
        """Return what this site tells others."""
        return Site(
            name, self._identity.recipient(), self._signer.private_key.public_key()
        )

    def signer(self) -> Signer:
        """Return what this site signs its records with."""
        return self._signer

    def identities(self) -> Sequence[Identity]:
        """Return what this site opens records with."""
        return [self._identity]

    def recipients(self) -> Sequence[Recipient]:
        """Return this site and those in ``recipients/``."""
        others = [site.recipient for site in self.sites("recipients")]
        return [self._identity.recipient(), *others]

    def trusted(self) -> TrustedSigners:
        """Return this site and those in ``trusted/``."""
        own = self._signer.private_key.public_key()
        keys = [own, *(site.verifier for site in self.sites("trusted"))]
        return TrustedSigners({signer_id(key): key for key in keys})

    def derive(self, message: bytes) -> bytes:
        """Return 32 bytes that only this site can derive from ``message``."""
        return hmac.digest(self._derivation, b"miadmark/v1/derive " + message, "sha256")

    def add_site(self, site: Site, *, as_recipient: bool, as_trusted: bool) -> None:
        """Seal to ``site`` from now on, or open what it seals, or both."""
        name = f"{site.fingerprint}.site"
        for part, wanted in (("recipients", as_recipient), ("trusted", as_trusted)):
            if wanted:
                (self.folder / part / name).write_text(site.to_text(), "utf-8")

    def sites(self, part: str) -> list[Site]:
        """Return the sites in one of ``recipients`` and ``trusted``."""
        return [read_site(file) for file in sorted((self.folder / part).glob("*.site"))]


def read_site(file: Path) -> Site:
    """Return the site that ``file`` describes.

    Raises:
        KeyFolderError: It cannot be read, or is no site file.
    """
    try:
        return Site.from_text(file.read_text("utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFolderError(f"{file} cannot be read") from error


def read_private(file: Path) -> object:
    """Return the private key in a PEM file.

    Raises:
        KeyFolderError: It cannot be read, or holds no private key.
    """
    try:
        return serialization.load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise KeyFolderError(
            f"{file} cannot be read: {error.strerror}",
            hint="miadmark keys init makes the keys of a site.",
        ) from error
    except (ValueError, TypeError) as error:
        raise KeyFolderError(f"{file} holds no private key") from error


def _pem(key: X25519PrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write_secret(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
