"""The files that a soak sends: sound, odd, or marked by hand.

Each is what its number says. What a node is to strip is marked with that node's keys and
in its ledger, by a mark that is drawn by lot: it misleads nobody, and is there in a
moment. Who sends the files, and what becomes of them, is not known here.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from dicom_node import private_block
from dicom_node.demo.soak_objects import Odd, Piece, Templates, Way
from dicom_node.elements import Limits
from dicom_node.instance import OpenInstance
from dicom_node.keepers import keeper
from dicom_node.keys.sealer import Sealer
from dicom_node.state import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.state import State


def file_of(folder: Path, piece: Piece) -> Path:
    """Return where an object of a soak lies, in the folder of that soak."""
    return folder / "objects" / f"{piece.number}.dcm"


def write(folder: Path, pieces: Sequence[Piece], state: State) -> dict[str, str]:
    """Write what is sent.

    Args:
        folder: Of the soak.
        pieces: All of them.
        state: Of the node: its keys mark what it is to strip.

    Returns:
        UIDs of the originals of what was marked, by its own.
    """
    templates, names = Templates(), {}
    (folder / "objects").mkdir()
    for piece in pieces:
        if piece.way is not Way.STRIPPED:
            file_of(folder, piece).write_bytes(templates.original(piece))
    with _hand(state) as marked:
        for piece in pieces:
            if piece.way is Way.STRIPPED:
                one = marked(templates.original(piece))
                names[one.sop_instance_uid] = one.source_instance_uid
                content = _spoilt(one.file.to_bytes(), piece)
                file_of(folder, piece).write_bytes(content)
    return names


def _spoilt(content: bytes, piece: Piece) -> bytes:
    """Return a marked object as it is sent; some are damaged on the way."""
    if piece.odd is Odd.ALTERED:
        return content[:-1] + bytes([content[-1] ^ 0xFF])
    if piece.odd is Odd.RECORD:
        place = content.rindex(private_block.CREATOR.encode("ascii")) + 600
        return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
    return content


@contextmanager
def _hand(state: State) -> Iterator[Callable[[bytes], MarkedInstance]]:
    """Yield what marks an object in a moment, with the node's keys and ledger."""
    from dicom_node.filters.mark import MarkedInstance, mark
    from miadmark_core.search.finder import FoundMark, Wanted

    chance = np.random.default_rng(1)

    def found(wanted: Sequence[Wanted]) -> list[FoundMark]:
        steps = chance.integers(-60, 61, (32, 32, 1), np.int8)
        return [FoundMark(steps, {}) for _ in wanted]

    keyring = state.keys()
    with (
        state.ledger() as ledger,
        state.renamings(keyring) as renamings,
        state.found_marks(keyring) as found_marks,
    ):
        sealer = Sealer(keyring, ledger.number)
        keep = keeper(keyring, ledger, renamings, found_marks, now)

        def marked(content: bytes) -> MarkedInstance:
            instance = OpenInstance.of(content, Limits())
            (outcome,) = mark(
                [instance], find=found, keys=sealer, now=now(), holds_weak=False
            )
            if not isinstance(outcome, MarkedInstance):
                raise outcome
            keep(outcome)
            return outcome

        yield marked
