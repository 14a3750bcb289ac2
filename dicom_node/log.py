"""One event a line: time, level, module, what happened. UIDs yes; names and dates never.

Configured once, by whoever starts a process.
"""

from __future__ import annotations

import logging
import sys


def configure(level: str = "INFO") -> None:
    """Send this program's events to standard error, and libraries' warnings with them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("dicom_node").setLevel(level)
    # Below error, pynetdicom describes messages at length, patients included.
    logging.getLogger("pynetdicom").setLevel(logging.ERROR)
    logging.getLogger("pydicom").setLevel(logging.ERROR)
