"""What the papers point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAPERS = [ROOT / "README.md", *sorted((ROOT / "deploy").glob("*.md"))]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_the_tests_and_modules_that_it_names_exist(paper: Path) -> None:
    text = paper.read_text("utf-8")
    named = re.findall(r"`((?:tests|deploy|dicom_node|miadmark_core)/[\w./-]+)`", text)
    gone = [name for name in named if not (ROOT / name).exists()]
    assert not gone
