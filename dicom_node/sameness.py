"""What a mark depends on beside the image and the site's keys: the search, and machines.

The same image, keys and search give the same mark: the same weights, library, profile,
kind of processor and number of threads, since sums that are split otherwise round
otherwise. Nodes of one site must not give one original two marks, so each says what its
search is, in a line, and one whose line is not the lead's marks nothing.

The line is compared and never parsed. That two equal lines do find equal marks is held by
tests, not by it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from dicom_node.durable import write_durably
from dicom_node.errors import AnotherSearchError

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "search.json"
"""In the state folder: what this node's search was when it marked last."""


def kept_search(state: Path) -> str:
    """Return what the search of a node was when it marked last; empty if never."""
    try:
        return str(json.loads((state / FILE).read_bytes())["search"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def keep_search(state: Path, search: str) -> None:
    """Remember what this node's search is."""
    if kept_search(state) != search:
        write_durably(state / FILE, json.dumps({"search": search}).encode("ascii"))


def require_same(search: str, wanted: str) -> None:
    """Return if this node's marks are those of the other nodes.

    Args:
        search: Of this node.
        wanted: Of the lead, as the charter says; empty if it has not said.

    Raises:
        AnotherSearchError: They are not, or nobody can tell.
    """
    if not wanted:
        raise AnotherSearchError(
            "the lead has not said by what search this site's marks are found",
            hint="At the lead: miadmark nodes search --config FILE; then it is in the "
            "next charter.",
        )
    if search != wanted:
        raise AnotherSearchError(
            f"this node would find other marks than its site: {search} here, {wanted} "
            "at the lead",
            hint="Same version, weights, profile, kind of processor and number of "
            "threads (search_threads in [node]) on every node. What waits is marked "
            "then, or hand it to another: miadmark drain.",
        )
