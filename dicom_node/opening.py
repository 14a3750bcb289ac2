"""What it takes to open a marked object: keys, trust, and who has to be asked.

It is gathered here so that the strip filter asks in one order, whatever it is part of: a
node, a command line, a release desk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dicom_node.instance import Identity
    from miadmark_core.sealing.record import Header, SealedRecord
    from miadmark_core.sealing.signing import TrustedSigners
    from miadmark_core.sealing.stanza import Opener

    Authorise = Callable[[Header, Identity], None]
    """Returns if the original may be had; raises NotGrantedError where it may not."""


class Records(Protocol):
    """Knows the records that this site has made."""

    def find(self, marked_digest: bytes) -> SealedRecord | None:
        """Return the newest record of the pixels with that digest."""
        ...

    def study_of(self, record_id: bytes) -> str:
        """Return the Study Instance UID that was marked; empty where it is not known."""
        ...

    def require_standing(self, header: Header, encoded: bytes) -> None:
        """Return if this very record was made here, and its key not destroyed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """All that :func:`dicom_node.filters.strip.strip` needs but the object."""

    openers: Sequence[Opener]
    """Asked in this order for the object key."""
    trusted: TrustedSigners
    least_suite: int = 1
    own_tenant: bytes = b""
    """Whose records have to be known to :attr:`records`."""
    records: Records | None = None
    """Without them, nothing is found that lost its block, and standing is not asked."""
    authorise: Authorise | None = None
    """Nobody has to be asked where the original stays in the site's own hands."""
    accepts_renamed: bool = False
    """Whether an object under another SOP Instance UID gives back its original."""
