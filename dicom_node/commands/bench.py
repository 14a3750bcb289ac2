"""``bench``: how long things take, beside a named peer in the same run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    bench = commands.add_parser("bench", help="how long things take, beside a peer")
    bench.add_argument("what", choices=["seal", "strip", "large"])
    bench.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> int:
    if options.what == "large":
        return _large()
    from dicom_node.demo.bench import bench_seal, bench_strip

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    run = {"seal": bench_seal, "strip": bench_strip}[options.what]
    with tempfile.TemporaryDirectory() as folder:
        for timing in run(Path(folder)):
            print(
                f"{timing.what}: {timing.median_ms:.2f} ms, {timing.ratio:.2f} times "
                f"{timing.peer}"
            )
    return 0


def _large() -> int:
    from dicom_node.demo.bench_large import bench_large, told

    with tempfile.TemporaryDirectory() as folder:
        for taken in bench_large(Path(folder)):
            print(told(taken), flush=True)
    return 0
