"""A queue that cannot be used for a while: told once, and once that it is over.

A server that is started again is away for a minute; several processes that try ten times
a second would fill the log with it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from dicom_node.errors import ServerError

if TYPE_CHECKING:
    from dicom_node.errors import SpoolError

logger = logging.getLogger(__name__)

AWAY_S: Final = 1.0
"""How long a server that is away is left alone; seconds."""
_SOON_S: Final = 0.1


class Outage:
    """What one process has told of it."""

    def __init__(self) -> None:
        """Begin: nothing was told."""
        self._is_told = False

    def met(self, error: SpoolError) -> float:
        """Tell that the queue cannot be used; return when to try again, in seconds."""
        if not isinstance(error, ServerError):
            logger.error("the queue cannot be used; trying again", exc_info=error)
            return _SOON_S
        if not self._is_told:
            logger.error("%s; trying again. %s", error, error.hint)
        self._is_told = True
        return AWAY_S

    def over(self) -> None:
        """Tell that it can be used, if anything else was told."""
        if self._is_told:
            logger.warning("the database server can be used again")
        self._is_told = False
