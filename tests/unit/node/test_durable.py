"""What is made is there after a power cut: its name, and those of what it lies in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dicom_node.codestreams import Codestreams
from dicom_node.durable import stream_durably
from dicom_node.spool import Spool
from dicom_node.state import State


def test_new_folders_are_synced_where_their_names_are(tmp_path: Path) -> None:
    synced: list[str] = []
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "whole = os.fsync\n"
        "def fsync(number):\n"
        "    print(os.readlink(f'/proc/self/fd/{number}'))\n"
        "    whole(number)\n"
        "os.fsync = fsync\n"
        "from dicom_node.state import State\n"
        "State(Path(sys.argv[1])).spool()\n"
    )
    state = tmp_path / "site" / "state"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program, state],
            capture_output=True,
            text=True,
            check=True,
        )
        synced += done.stdout.split()
    # Each once, and the state once more for the file that names its format: the second
    # time they are there.
    folders = [tmp_path, tmp_path / "site", state, state, state / "spool"]
    assert sorted(one for one in synced if not one.endswith(".part")) == sorted(
        map(str, folders)
    )
    assert isinstance(State(state).spool(), Spool)


def test_what_a_kill_has_left_of_a_kept_codestream_goes(tmp_path: Path) -> None:
    codestreams = Codestreams(tmp_path / "codestreams")
    assert codestreams.sweep(1.0) == 0  # nothing was ever kept
    codestreams.folder.mkdir()
    stream_durably(codestreams.folder / "whole.codestream", [b"kept"])
    parts = [codestreams.folder / f".{n}.codestream.1.part" for n in "ab"]
    for when, part in enumerate(parts):
        part.write_bytes(b"half")
        os.utime(part, (when, when))
    os.utime(codestreams.folder / "whole.codestream", (0, 0))
    assert codestreams.sweep(1.0) == 1
    left = sorted(path.name for path in codestreams.folder.iterdir())
    assert left == [parts[1].name, "whole.codestream"]
