"""Three nodes of a site behind a balancer, one killed, one cut off: the short form."""

from __future__ import annotations

from pathlib import Path

from tests.balanced import Fleet, Run, pieces_of


def test_what_one_node_lacks_the_others_do_and_all_mark_alike(tmp_path: Path) -> None:
    said: list[str] = []
    with Fleet(tmp_path / "fleet") as fleet:
        Run(fleet, pieces_of(60, 20), said.append).go()
    assert len(said) == 6
