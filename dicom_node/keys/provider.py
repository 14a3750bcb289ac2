"""What the node asks of whatever keeps its root key.

A site's private keys lie in its key folder, each sealed under the *root*: a key that
never leaves the place which keeps it. Passphrase, PKCS #11 token and transit service are
such places; one contract holds for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET_SIZES: Final = range(16, 129)
"""Bytes that a root wraps at once: keys and seeds, nothing larger."""


class Root(Protocol):
    """Keeps the root key of one site; its versions count from 1."""

    @property
    def version(self) -> int:
        """Return the version that :meth:`wrap` uses."""
        ...

    def settings(self) -> Mapping[str, str]:
        """Return what is needed to find this root again; nothing secret."""
        ...

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` sealed under the newest version.

        Args:
            secret: 16 to 128 bytes.
            context: What it is; :meth:`unwrap` must be given the same.

        Raises:
            KeyServiceError: The place cannot be reached, or refuses for now.
        """
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the secret; the inverse of :meth:`wrap`, whichever version it took.

        Raises:
            KeyFolderError: It changed, is something else, or its version is gone.
            KeyServiceError: The place cannot be reached, or refuses for now.
        """
        ...

    def version_of(self, wrapped: bytes) -> int:
        """Return which version sealed it; 0 where that cannot be read."""
        ...

    def rotate(self) -> int:
        """Make the next version and return its number; the older ones still unwrap."""
        ...

    def forget(self, version: int) -> None:
        """Destroy a version that is not the newest: what it sealed is lost with it.

        Raises:
            KeyFolderError: It is the newest, or there is none of that number.
        """
        ...
