"""A site file: what one site tells another, public keys only.

One TOML file each way is all that two sites exchange to begin. It holds what records are
sealed to, what their signatures are checked with, and whose gateway that is; people
compare its fingerprint by telephone.
"""

from __future__ import annotations

import base64
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.errors import KeyFolderError
from miadmark_core.sealing.recipients import Recipient
from miadmark_core.sealing.signing import TENANT_SIZE, Trust, Verifier
from miadmark_core.sealing.suites import OBJECT_KEY_SIZE, SUITES

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What one site tells another."""

    name: str
    """How others call it; nothing rests on it."""
    tenant: bytes
    recipient: Recipient
    verifier: Verifier
    last_sequence: int | None = None
    """The last record that is believed; None as long as the key is good."""

    def __post_init__(self) -> None:
        """Refuse a tenant of another length."""
        if len(self.tenant) != TENANT_SIZE:
            raise ValueError(f"a tenant of {len(self.tenant)} bytes")

    @property
    def fingerprint(self) -> str:
        """Return what two people compare by telephone."""
        return self.verifier.id.hex()

    @property
    def trust(self) -> Trust:
        """Return how far its records are believed."""
        return Trust(self.verifier, self.tenant, self.last_sequence)

    def to_text(self) -> str:
        """Return the site file; the inverse of :meth:`from_text`."""
        lines = [
            "# MIAD-MARK site file: public keys, nothing secret.",
            f"# Compare by telephone: {self.fingerprint}",
            f'name = "{_plain(self.name)}"',
            f'tenant = "{self.tenant.hex()}"',
            f'recipient = "{base64.b64encode(self.recipient.encoded).decode()}"',
            f'verifier = "{base64.b64encode(self.verifier.encoded).decode()}"',
        ]
        if self.last_sequence is not None:
            lines.append(f"last_sequence = {self.last_sequence}")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(cls, text: str, source: str) -> Site:
        """Return the site that a site file describes.

        Raises:
            KeyFolderError: It is no site file.
        """
        try:
            entries = tomllib.loads(text)
            last = entries.get("last_sequence")
            site = cls(
                name=str(entries["name"]),
                tenant=bytes.fromhex(entries["tenant"]),
                recipient=Recipient(_decoded(entries["recipient"])),
                verifier=Verifier(_decoded(entries["verifier"])),
                last_sequence=None if last is None else int(last),
            )
            for suite in SUITES.values():  # what cannot be sealed to is no recipient
                site.recipient.wrap(suite, bytes(OBJECT_KEY_SIZE), b"")
        except (
            LookupError,
            ValueError,
            TypeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise KeyFolderError(
                f"{source} is no site file",
                hint="miadmark keys export-recipient writes one.",
            ) from error
        return site


def read_site(file: Path) -> Site:
    """Return the site that ``file`` describes.

    Raises:
        KeyFolderError: It cannot be read, or is no site file.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES)
        return Site.from_text(content.decode("utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFolderError(f"{file} cannot be read") from error


def _plain(name: str) -> str:
    kept = (c for c in name if c.isprintable() and c not in '\\"')
    return "".join(kept)[:64]


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
