"""Marks drawn by hand, in a moment: for tests of what happens to marked objects."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import NOW, opened

SMALL = 512
"""Rows, up to which every file of the corpus is used."""


def by_hand(wanted: Sequence[Wanted]) -> list[FoundMark]:
    """Two rectangles, one lighter, one darker."""
    steps = np.zeros((224, 224, 1), np.int8)
    steps[20:90, 30:100], steps[120:200, 100:210] = 100, -90
    return [FoundMark(steps, {}, is_logo=True) for _ in wanted]


def marked_by_hand(original: OpenInstance, keys: Sealer) -> MarkedInstance | Exception:
    (outcome,) = mark([original], find=by_hand, keys=keys, now=NOW, holds_weak=True)
    return outcome


def sent(marked: MarkedInstance) -> OpenInstance:
    """The object that was marked, as whoever receives it opens it."""
    return OpenInstance.of(marked.file.to_bytes(), Limits())


def small_files(shared: Path) -> Iterator[tuple[Path, OpenInstance]]:
    """Every readable file of the corpus with a picture of up to 512 rows."""
    with (shared / "dicom" / "index.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["rows"].isdigit()]
    for row in rows:
        if int(row["rows"]) > SMALL:
            continue
        path = shared / "dicom" / row["file"]
        try:
            yield path, opened(path)
        except NodeError:
            continue
