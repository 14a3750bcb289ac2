"""A signal may come while its event is being waited for."""

from __future__ import annotations

import subprocess
import sys

WITHIN_WAIT = """
import signal
from dicom_node.stopping import Stopping

stopping = Stopping()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
with stopping._cond:  # as wait() holds it
    signal.raise_signal(signal.SIGTERM)
assert stopping.wait(1)
"""


def test_a_signal_may_come_within_a_wait() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_WAIT],
        check=False,
        timeout=60,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
