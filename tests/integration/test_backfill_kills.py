"""Kill a back-fill at any moment, as often as one likes: each object is done once.

The short form is part of the test-suite. The long one::

    python -m tests.integration.test_backfill_kills FOLDER --objects 5000 --kills 10
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from dicom_node.demo.loopback import await_that
from tests.archives import entries, require_done_once, small_objects


def _command(folder: Path) -> list[str]:
    out, state, path = folder / "out", folder / "state", folder / "manifest"
    return [
        *(sys.executable, "-m", "dicom_node", "backfill", str(folder / "in"), "--json"),
        *("--out", str(out), "--state", str(state), "--manifest", str(path)),
        *("--verify", "0.05", "--seed", "a seed"),
    ]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(
    folder: Path, objects: int, kills: int, chance: random.Random
) -> list[float]:
    """Kill so often, then let it finish; how long each start took to go on, in s."""
    small_objects(folder / "in", objects)
    began = []
    for number in range(kills + 1):
        log = folder / f"{number}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(_command(folder), stdout=stream, stderr=stream)
        if number < kills:
            share = objects // (kills + 1)
            _await(process, folder / "manifest", chance.randint(share // 2, share))
            time.sleep(chance.random() / 50)
            process.kill()
            assert process.wait(timeout=60) == -signal.SIGKILL
        else:
            assert process.wait(timeout=3600) == 0
        said = json.loads(log.read_text().splitlines()[0])
        assert said["status"] == "begun"
        began.append(said["seconds"])
    require_done_once(folder / "manifest", folder / "in", folder / "out")
    assert len(entries(folder / "manifest")) == objects
    assert any(entry["verified"] for entry in entries(folder / "manifest"))
    return began


def _await(process: subprocess.Popen[bytes], manifest: Path, more: int) -> None:
    """Return once so many more objects are done, or the process is."""
    wanted = _lines(manifest) + more
    await_that(
        lambda: _lines(manifest) > wanted or process.poll() is not None,
        f"{more} objects that are done",
        within=timedelta(minutes=30),
    )


def test_whoever_is_killed_goes_on_and_does_each_object_once(tmp_path: Path) -> None:
    chance = random.Random()  # noqa: S311
    killed(tmp_path, objects=200, kills=4, chance=chance)
    left = {p.name for p in tmp_path.iterdir()} - {f"{n}.log" for n in range(5)}
    assert left == {"in", "out", "state", "manifest"}
    assert not list((tmp_path / "state" / "backfill").iterdir())


def test_whoever_is_interrupted_says_so_and_ends_whole(tmp_path: Path) -> None:
    small_objects(tmp_path / "in", 100)
    path = tmp_path / "manifest"
    command = [*_command(tmp_path), "--objects-per-s", "5"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _await(process, path, 3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"stopped before everything was done" in said
    assert 2 < len(entries(path)) < 100
    assert (
        subprocess.run(_command(tmp_path), check=False, capture_output=True).returncode
        == 0
    )
    require_done_once(path, tmp_path / "in", tmp_path / "out")


def main() -> int:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)  # noqa: S311
    started = time.monotonic()
    began = killed(options.folder, options.objects, options.kills, chance)
    sys.stdout.write(
        f"{options.objects} objects, {options.kills} kills, each done once; "
        f"{time.monotonic() - started:.0f} s in all; from its own start until a run goes "
        f"on: {max(began):.2f} s at most\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
