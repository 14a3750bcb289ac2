"""What looks for marks: the search of this machine, or one that a cluster carries out.

torch is loaded when one is made for this machine, and not before. What becomes of the
marks that it finds is not known here.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.extras import extra
from dicom_node.sameness import keep_search, require_same
from dicom_node.searching import ClusterSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from dicom_node.config import Cluster
    from dicom_node.keys.keyring import Keyring
    from dicom_node.marking import Marking
    from miadmark_core.search.finder import Finder, FoundMark, Wanted

    class Searching(Protocol):
        """Looks for marks: a :class:`Finder`, or what has them looked for."""

        @property
        def sameness(self) -> str:
            """Return, in a line, what marks depend on: :attr:`Finder.sameness`."""
            ...

        def ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
            """Ask for a mark for each frame; return what waits for them, in order."""
            ...


SHIPPED_WEIGHTS: Final = Path(__file__).parent.parent / "miadmark_core" / "weights"


def finder_of(weights: Path | None, marking: Marking, threads: int = 0) -> Finder:
    """Return what looks for marks; torch is loaded now.

    Args:
        weights: Of this site, if it has any.
        marking: How.
        threads: Of the search; 0 leaves that to torch.
    """
    with extra("mark", "marking"):
        from miadmark_core.search.effort import Effort
        from miadmark_core.search.finder import PROFILES, Finder, best_device
    effort = PROFILES[marking.profile.value]
    if isinstance(effort, Effort):
        effort = replace(effort, mode=marking.mode)
    if threads:
        import torch

        torch.set_num_threads(threads)
    folders = [folder for folder in (weights, SHIPPED_WEIGHTS) if folder]
    return Finder(*folders, device=best_device(), effort=effort)


def cluster_search(
    cluster: Cluster | None,
    weights: Path | None,
    marking: Marking,
    folder: Path,
    away: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> AbstractContextManager[ClusterSearch | None]:
    """Return what has marks looked for on a cluster, open in a ``with``; None for here.

    Args:
        cluster: Where; None for here.
        weights: See :class:`ClusterSearch`, for this and for errors.
        marking: Likewise.
        folder: The state folder.
        away: See :class:`ClusterSearch`.
    """
    if cluster is None:
        return nullcontext()
    key = cluster.key or folder / "cluster.key"
    digest = cache(lambda: finder_of(weights, marking).digest)
    return ClusterSearch(cluster, key, weights, marking, digest, away)


def may_search(state: Path, keyring: Keyring, search: str) -> None:
    """Return if a search may look for marks here, and remember which it is.

    Args:
        state: The state folder.
        keyring: Of this node.
        search: See :attr:`Finder.sameness`.

    Raises:
        AnotherSearchError: It would find others than the lead of the site.
    """
    keyring.refresh()
    if keyring.nodes.taken:
        require_same(search, keyring.nodes.search)
    keep_search(state, search)
