"""A disk without room turns callers away for now, and lets them in again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.demo.loopback import LOOPBACK
from tests.callers import (
    CALLED,
    REJECTED,
    a_config,
    answer,
    associate,
    connected,
    receiving,
)


def test_callers_are_turned_away_while_there_is_no_room(tmp_path: Path) -> None:
    ae = AE("PACS")
    ae.add_requested_context(Verification)
    with receiving(a_config(), tmp_path) as receiver:
        receiver.lack = "3 MB are free, 1024 are wanted"
        # Not with pynetdicom: it takes an answer that comes at once for no connection.
        with connected(receiver.port) as turned_away:
            turned_away.sendall(associate())
            kind, said = answer(turned_away)
        # Rejected for now, local limit exceeded: PS3.8 table 9-21.
        assert (kind, tuple(said[1:])) == (REJECTED, (2, 3, 2))
        receiver.lack = ""
        let_in = ae.associate(LOOPBACK, receiver.port, ae_title=CALLED)
        assert let_in.is_established
        # Who is in when the disk fills up is answered, object by object.
        receiver.lack = "3 MB are free, 1024 are wanted"
        assert let_in.send_c_echo().Status == 0
        let_in.release()


@pytest.mark.peers
def test_another_make_is_told_that_it_is_for_now(tmp_path: Path) -> None:
    if shutil.which("echoscu") is None:
        pytest.skip("no echoscu")
    with receiving(a_config(), tmp_path) as receiver:
        receiver.lack = "no inodes are free"
        said = subprocess.run(
            ["echoscu", "-v", "-aec", CALLED, LOOPBACK, str(receiver.port)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode != 0
        assert "Rejected Transient" in said.stdout + said.stderr
        assert "Local Limit Exceeded" in said.stdout + said.stderr
