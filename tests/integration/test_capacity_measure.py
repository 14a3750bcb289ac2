from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.capacity.constants import Constants
from dicom_node.demo.bench_capacity import Amount, bench_capacity
from dicom_node.errors import NodeError
from dicom_node.marking import Profile


@pytest.mark.peers
def test_this_machine_is_measured(tmp_path: Path) -> None:
    amount = Amount(relayed=12, marked=1, profiles=(Profile.FAST,))
    told: list[str] = []
    found = bench_capacity(tmp_path, amount, told.append)
    assert Constants.of_json(found.as_json()) == found
    assert found.mark_s["fast"] > found.strip_s
    assert found.image_bytes > 512 * 512 * 2
    assert found.marked_bytes > found.image_bytes
    assert found.ledger_bytes > 1000
    assert len(told) == 2


def test_nothing_is_no_measurement() -> None:
    with pytest.raises(NodeError, match="nothing to measure"):
        Amount(relayed=1)
