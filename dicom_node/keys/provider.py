"""What the node asks of whatever keeps its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from miadmark_core.sealing.recipients import Identity, Recipient
    from miadmark_core.sealing.signing import Signer, TrustedSigners


class KeyProvider(Protocol):
    """Keys of one site."""

    def signer(self) -> Signer:
        """Return what this site signs its records with."""
        ...

    def identities(self) -> Sequence[Identity]:
        """Return what this site opens records with."""
        ...

    def recipients(self) -> Sequence[Recipient]:
        """Return whom this site seals to; itself among them."""
        ...

    def trusted(self) -> TrustedSigners:
        """Return whose records this site opens; its own among them."""
        ...

    def derive(self, message: bytes) -> bytes:
        """Return 32 bytes that only this site can derive from ``message``."""
        ...
