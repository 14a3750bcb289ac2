"""Ten thousand generated pictures go out marked, and come back as they were.

What fails is printed as a case, which goes alone with::

    go(Case(...), a_site(folder))
"""

from __future__ import annotations

import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import pytest

from tests.pictures import COLOURED, COMPRESSED, GREY, NATIVE, PALETTES, cases
from tests.round_trips import COUNT, go_all

PROCESSES: Final = 2


def each(least: int, *kinds: str) -> dict[str, int]:
    return dict.fromkeys(kinds, least)


AT_LEAST: Final = {
    **each(10_000, "restored"),
    **each(150, "refused"),
    **each(500, *GREY, *COLOURED, "PALETTE COLOR"),
    **each(100, *(f"grey {syntax}" for syntax in (*NATIVE, *COMPRESSED))),
    **each(100, *(f"RGB {syntax}" for syntax in (*NATIVE, *COMPRESSED))),
    **each(50, *(f"YBR_FULL {syntax}" for syntax in (*NATIVE, "rle"))),
    **each(50, *(f"YBR_FULL_422 {syntax}" for syntax in NATIVE)),
    **each(50, *(f"PALETTE COLOR {syntax}" for syntax in (*NATIVE, "rle"))),
    **each(100, *(f"palette {palette}" for palette in PALETTES)),
    **each(1000, *(f"{frames} frames" for frames in range(1, 6))),
    **each(300, *(f"{stored} stored" for stored in range(5, 17))),
    **each(50, *(f"{stored} stored" for stored in range(2, 5))),  # palettes
    **each(500, "windows one", "windows several", "windows per frame"),
    **each(500, "padding value", "padding range", "logo"),
    **each(1000, "content ends", "content flat", "extras", "rescaled"),
    **each(1000, "signed", "planar", "overlays", "shifted"),
    **each(10 * (shutil.which("dcmcjpeg") is not None), "jpeg lossless"),
}
"""How many of each kind have to come back, so that none is left out unnoticed."""


@pytest.mark.timeout(1800)  # minutes on a slow machine, not seconds
def test_ten_thousand_pictures_come_back_as_they_were(tmp_path: Path) -> None:
    wanted = [
        case
        for case in cases(COUNT)
        if case.syntax != "jpeg lossless" or shutil.which("dcmcjpeg") is not None
    ]
    folders = [tmp_path / str(number) for number in range(PROCESSES)]
    shares = [wanted[number::PROCESSES] for number in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as processes:
        results = list(processes.map(go_all, shares, folders))
    counted: Counter[str] = sum((c for c, _ in results), Counter())
    failed = [case for _, cases_failed in results for case in cases_failed]
    assert failed == [], f"{len(failed)} failed:\n" + "\n".join(failed[:20])
    too_few = {k: counted[k] for k, least in AT_LEAST.items() if counted[k] < least}
    assert too_few == {}
