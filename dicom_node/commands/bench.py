"""``bench``: how long things take, beside a named peer in the same run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands.report import Report, add_json

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    bench = commands.add_parser("bench", help="how long things take, beside a peer")
    bench.add_argument(
        "what", choices=["seal", "strip", "mark", "large", "relay", "soak"]
    )
    both = bench.add_argument_group("of relay and soak")
    both.add_argument(
        "--objects",
        type=int,
        help="passed in a round (default 300); of the whole soak (default 20000)",
    )
    both.add_argument(
        "--marked",
        type=int,
        help="relay: marked and stripped, as many by default, 0 for neither; "
        "soak: marked (default one in 400)",
    )
    both.add_argument(
        "--folder", type=Path, metavar="DIR", help="whose disk is written to"
    )
    soak = bench.add_argument_group("of soak")
    soak.add_argument(
        "--poison", type=float, default=0.01, help="share of objects that are odd"
    )
    soak.add_argument(
        "--killers",
        type=int,
        help="objects that kill whoever marks them (default one in 5000, at least one)",
    )
    bench.add_argument("--rounds", type=int, default=3, help="of relay and mark")
    mark = bench.add_argument_group("of mark")
    mark.add_argument(
        "--ray", metavar="ADDRESS", help="compare with a Ray cluster too, host:port"
    )
    mark.add_argument("--workers", type=int, default=2, help="of the cluster")
    relay = bench.add_argument_group("of relay")
    relay.add_argument(
        "--picture", type=Path, default=Path("relay.svg"), metavar="FILE"
    )
    bench.set_defaults(run=_bench)
    add_json(
        bench,
        *("what", "median_ms", "peer", "ratio"),  # seal and strip
        *("seconds", "peer_seconds"),  # mark
        "peak_mib",  # large, and seconds
        *("objects", "rate", "picture"),  # relay
        *("says", "wrong"),  # soak
        is_long=True,
    )


def _bench(options: argparse.Namespace) -> int:
    if options.what == "large":
        return _large(options)
    if options.what == "mark":
        return _mark(options)
    if options.what == "relay":
        return _relay(options)
    if options.what == "soak":
        return _soak(options)
    from dicom_node.demo.bench import bench_seal, bench_strip

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    run = {"seal": bench_seal, "strip": bench_strip}[options.what]
    report = Report(options)
    with tempfile.TemporaryDirectory() as folder:
        for timing in report.track(run(Path(folder)), "timing", 2):
            report.tell(
                f"{timing.what}: {timing.median_ms:.2f} ms, {timing.ratio:.2f} times "
                f"{timing.peer}",
                **timing._asdict(),
            )
    return 0


def _large(options: argparse.Namespace) -> int:
    from dicom_node.demo.bench_large import bench_large, told

    report = Report(options)
    with tempfile.TemporaryDirectory() as folder:
        for taken in report.track(bench_large(Path(folder)), "marking, restoring", 4):
            report.tell(told(taken), **taken._asdict())
    return 0


def _mark(options: argparse.Namespace) -> int:
    from dicom_node.config import Cluster
    from dicom_node.demo.bench_mark import bench_mark

    count, cluster = options.workers, None
    if options.ray:
        cluster = Cluster(ray=options.ray, least=count, most=count)
    report = Report(options)
    with tempfile.TemporaryDirectory() as folder:
        timed = bench_mark(Path(folder), options.rounds, cluster)
        for found in report.track(timed, "marking", 1 if cluster is None else 2):
            report.tell(
                f"{found.what}: {found.seconds:.2f} s, {found.ratio:.2f} times as many a "
                f"second as {found.peer} ({found.peer_seconds:.2f} s)",
                **found._asdict(),
                ratio=found.ratio,
            )
    return 0


def _relay(options: argparse.Namespace) -> int:
    from dicom_node.demo.bench_relay import Size, bench_relay, compared, settings, told
    from dicom_node.demo.bench_relay_picture import picture

    objects = 300 if options.objects is None else options.objects
    marked = objects if options.marked is None else options.marked
    size = Size(objects=objects, marked=marked, rounds=options.rounds)
    used, report = settings(size), Report(options)
    for line in used:
        report.tell(line, says=line)
    rounds = []
    count = size.rounds * (6 if size.marked else 4)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for one in report.track(bench_relay(Path(folder), size), "relaying", count):
            rounds.append(one)
            said = f"{one.what}: {one.objects} objects in {one.seconds:.2f} s"
            report.tell(said, **one._asdict())
    found = compared(rounds)
    for each in found:
        facts = {"rate": each.ours, "ratio": each.ratio, "peer": "Orthanc, unmarked"}
        report.tell(told(each), what=each.what, **facts)
    options.picture.write_text(picture(found, used), "utf-8")
    report.tell(str(options.picture.absolute()), picture=str(options.picture))
    return 0


def _soak(options: argparse.Namespace) -> int:
    from dicom_node.demo.soak import Size, Soak
    from dicom_node.demo.soak_objects import Mix

    objects = 20_000 if options.objects is None else options.objects
    mix = Mix(
        objects=objects,
        poison=options.poison,
        marked=objects // 400 if options.marked is None else options.marked,
        killers=(
            max(1, objects // 5000) if options.killers is None else options.killers
        ),
    )

    report = Report(options)

    def tell(line: str) -> None:
        report.tell(line, says=line)

    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        report.working("soaking"),
    ):
        told = Soak(Path(folder), Size(mix=mix), tell).run()
    report.say(*told.lines())
    if report.is_json:
        report.tell("", says=told.lines(), seconds=told.seconds, wrong=told.wrong)
    return 1 if told.wrong else 0
