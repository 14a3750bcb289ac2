"""Twenty thousand hostile files: each is done or refused by name, soon, in little room.

They are real files, changed by chance, see :mod:`tests.fuzzing`; the same every time.
Each goes all the way of a node: opened, inspected, decompressed in the process for
codecs, decoded, marked, stripped. How far they come is looked at as well, since a test
whose files are all refused at the door would be hollow.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.fuzzing import STRUCTURED, run_share

pytestmark = pytest.mark.data

CASES = 20_000
PROCESSES = 2
MOST_S = 2.0
MIB = 1 << 20
MOST_MEMORY = 512 * MIB

LEAST = {
    "opened": 0.40,
    "inspected": 0.40,
    "described": 0.20,
    "decoded": 0.20,
    "decompressed": 0.05,
    "marked": 0.03,
    "stripped": 0.04,
}
"""Of all cases, what has to come so far."""


@pytest.mark.timeout(1500)
def test_whatever_comes_is_done_or_refused_by_name(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context("spawn")  # not a copy of what pytest holds
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        shares = [
            pool.submit(
                run_share,
                shared / "dicom",
                tmp_path / str(first),
                range(first, CASES, PROCESSES),
                MOST_S,
            )
            for first in range(PROCESSES)
        ]
        tallies = [share.result() for share in shares]
    reached = sum((tally.reached for tally in tallies), Counter())
    kinds = sum((tally.kinds for tally in tallies), Counter())
    told = [f"{CASES} cases: " + ", ".join(f"{n} {k}" for k, n in reached.items())]
    told += [
        f"slowest {tally.slowest:.2f} s, {tally.grown / MIB:.0f} MiB above the start, "
        f"{tally.codec_memory / MIB:.0f} MiB decoding"
        for tally in tallies
    ]
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(told) + "\n")
    failures = [failure for tally in tallies for failure in tally.failures]
    assert not failures, "\n".join(failures[:5])
    assert not [case for tally in tallies for case in tally.slow]
    assert sum(tally.cases for tally in tallies) == CASES
    for tally in tallies:
        assert tally.grown < MOST_MEMORY
        assert tally.codec_memory < MOST_MEMORY
    for stage, share in LEAST.items():
        assert reached[stage] >= share * CASES, stage
    assert min(kinds[kind] for kind in STRUCTURED) >= CASES // 200
