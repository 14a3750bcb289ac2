"""Ask for the marks of objects: decode each, and have a search look at all of them.

What is asked for need not be waited for at once: whoever looks for marks on another
machine is at it while others are finished here. Nothing is changed, nothing is kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from dicom_node.decoding import decode_frames
from dicom_node.errors import NodeError, UnforeseenError
from dicom_node.filters.preparation import prepare
from dicom_node.naming import nothing
from dicom_node.quantities import require_no_quantity
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dicom_node.decoding import Decode
    from dicom_node.filters.preparation import Prepared
    from dicom_node.filters.region import Regions
    from dicom_node.instance import OpenInstance
    from dicom_node.keys.sealer import Sealer
    from miadmark_core.search.finder import FoundMark, Wanted

    Ask = Callable[[Sequence[Wanted]], Callable[[], list[FoundMark]]]
    """Asks for marks, and returns what waits for them."""
    Before = Callable[[bytes], Sequence[FoundMark] | None]
    """Returns what an original went out with; None if it never did."""

SEARCHED_TOGETHER: Final = 64
"""Frames that are handed to the search at a time; they lie in memory as they are
shown."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sought:
    """Objects of which the marks are looked for; see :func:`seek`."""

    count: int
    refused: dict[int, NodeError | MiadMarkError]
    """Why some can carry no mark, by their place among the objects."""
    prepared: dict[int, Prepared]
    """The others."""
    sources: dict[int, bytes]
    """What each of those is known by."""
    known: dict[bytes, Sequence[FoundMark]]
    """What some of them went out with before."""
    new: dict[bytes, Callable[[], list[FoundMark]]]
    """Waits for what is found for each of the rest."""


def seek(
    originals: Sequence[OpenInstance],
    *,
    ask: Ask,
    before: Before = nothing,
    keys: Sealer,
    marks_quantities: bool = False,
    regions: Regions | None = None,
    style: str = "",
    decode: Decode = decode_frames,
) -> Sought:
    """Ask for the marks of objects; ``mark.finish`` puts them in.

    Objects are searched together, since that is faster than one by one.

    Args:
        originals: What is to be marked. Not modified.
        ask: Asks for the marks.
        before: Knows what originals went out with: they go out so again.
        keys: What to derive with.
        marks_quantities: Whether labels and quantities are marked as pictures are,
            rather than be an error.
        regions: Where somebody drew a finding; elsewhere the search looks for itself.
        style: How the site marks; the new UIDs depend on it.
        decode: Calls the codecs.

    Raises:
        OSError: The disk is full, or there are no descriptors left.
        MemoryError: There is no memory for one of them.
    """
    drawn = regions or {}
    refused: dict[int, NodeError | MiadMarkError] = {}
    prepared: dict[int, Prepared] = {}
    sources: dict[int, bytes] = {}
    known: dict[bytes, Sequence[FoundMark]] = {}
    new: dict[bytes, Prepared] = {}  # the same original may be there twice
    for index, original in enumerate(originals):
        try:
            if not marks_quantities:
                require_no_quantity(original)
            one = prepare(original, keys, decode)
            source = _source(one, drawn, style, keys)
            if (marks := before(source)) is not None:
                known[source] = marks
            else:
                new.setdefault(source, one)
            prepared[index], sources[index] = one, source
        except Exception as error:  # noqa: BLE001 see named
            refused[index] = named(error)
    return Sought(
        count=len(originals),
        refused=refused,
        prepared=prepared,
        sources=sources,
        known=known,
        new=_asked(new, ask, drawn),
    )


def _source(prepared: Prepared, drawn: Regions, style: str, keys: Sealer) -> bytes:
    """Return what an original is known by: what must not get two different marks."""
    uid = str(prepared.attributes.get("SOPInstanceUID") or "")
    region = drawn.get(uid)
    where = b"" if region is None else hashlib.sha256(region.tobytes()).digest()
    digest = prepared.picture.image.digest()
    return keys.derive(
        b"\0".join((b"source", uid.encode(), style.encode(), digest + where))
    )


def _asked(
    prepared: dict[bytes, Prepared], ask: Ask, drawn: Regions
) -> dict[bytes, Callable[[], list[FoundMark]]]:
    """Ask for the marks of each, searched together, and return what waits for them."""
    searches = _Searches(prepared, ask, drawn)
    return {source: partial(searches.found, source) for source in prepared}


class _Searches:
    """The searches of several objects, which are one search as far as it goes.

    The first frames are asked for at once, the others when those have come: no more of
    them lie in memory. Where whoever searches dies of them, each object is searched by
    itself, and one alone is to blame.
    """

    def __init__(
        self, prepared: dict[bytes, Prepared], ask: Ask, drawn: Regions
    ) -> None:
        """Ask."""
        self._prepared, self._ask, self._drawn = prepared, ask, drawn
        self._found: dict[bytes, list[FoundMark]] = {}
        self._alone: dict[bytes, _Searches] = {}
        self._error: Exception | None = None
        """Why nothing is found. What had come by then is gone, so it is told again."""
        self._frames = (
            (source, frame)
            for source, one in prepared.items()
            for frame in one.wanted(drawn)
        )
        self._whose, self._wait = self._next()

    def _next(self) -> tuple[list[bytes], Callable[[], list[FoundMark]]]:
        frames = list(islice(self._frames, SEARCHED_TOGETHER))
        whose = [source for source, _ in frames]
        return whose, self._ask([frame for _, frame in frames]) if frames else list

    def found(self, source: bytes) -> list[FoundMark]:
        """Wait for what is found for one of them.

        Raises:
            UnforeseenError: Whoever searches for it dies of it.
        """
        if self._error is not None:
            raise self._error
        if source not in self._found and source not in self._alone:
            try:
                self._all()
            except Exception as error:
                self._error = error
                raise
        if source in self._alone:
            return self._alone[source].found(source)
        return self._found[source]

    def _all(self) -> None:
        found: dict[bytes, list[FoundMark]] = {source: [] for source in self._prepared}
        try:
            while self._whose:
                for source, one in zip(self._whose, self._wait(), strict=True):
                    found[source].append(one)
                self._whose, self._wait = self._next()
        except UnforeseenError:
            if len(self._prepared) == 1:
                raise
            self._alone = {
                source: _Searches({source: one}, self._ask, self._drawn)
                for source, one in self._prepared.items()
            }
        else:
            self._found = found


def named(error: Exception) -> NodeError | MiadMarkError:
    """Return an error with a sentence, whatever happened.

    One odd object must not stop the others that it is marked with. A full disk and a full
    memory are no object's doing, and would stop the others as well.

    Raises:
        OSError: ``error`` itself.
        MemoryError: ``error`` itself.
    """
    if isinstance(error, (OSError, MemoryError)):
        raise error
    if isinstance(error, (NodeError, MiadMarkError)):
        return error
    named = UnforeseenError(
        f"marking failed unexpectedly: {type(error).__name__}",
        hint="The object is odd, or this is a mistake of ours; it is not sent.",
    )
    named.__cause__ = error
    return named
