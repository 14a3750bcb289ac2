"""What the README claims is what was measured."""

import json
from pathlib import Path

from miadmark_core.evaluation.readme import PUBLISHED, readme_table

ROOT = Path(__file__).parents[3]


def test_the_readmes_table_is_made_of_the_published_results() -> None:
    results = json.loads((ROOT / PUBLISHED).read_text("utf-8"))
    assert readme_table(results) in (ROOT / "README.md").read_text("utf-8")


def test_nothing_was_found_wrong_with_the_published_results() -> None:
    results = json.loads((ROOT / PUBLISHED).read_text("utf-8"))
    assert results["findings"] == []
    assert all(entry["restored_identical"] == 1 for entry in results["marks"])
