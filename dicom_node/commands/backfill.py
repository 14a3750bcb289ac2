"""``backfill``: protect an archive before it moves."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from dicom_node.commands import terminal
from dicom_node.commands.protecting import add_options, protecting
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import BackfillError, ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from dicom_node.backfill.filling import Compare, Sample, Work
    from dicom_node.backfill.manifest import Entry, Manifest
    from dicom_node.backfill.source import Source
    from dicom_node.backfill.target import Target
    from dicom_node.commands.report import Bar
    from dicom_node.config import Cluster
    from dicom_node.state import State

_SLOWEST: Final = 0.02
"""Objects a second. A throttle that remembers more than a minute does not believe it."""
_MOST_WAITING: Final = 1000
"""Objects in a hatch, above which it is left alone until the node has taken some in."""
_INTERRUPTED: Final = 130
_WORKERS: Final = 8
_DOING: Final = "back-fill"
_KEYS: Final = (
    *("source", "sop_instance_uid", "before", "after", "status", "reason", "size"),
    *("verified", "done_before", "manifest", "seconds"),
)
"""The last three are of the first line, whose status is begun."""


class _Job(NamedTuple):
    """What is done, and where what it takes is kept."""

    target: Target
    work: Work
    compare: Compare
    sample: Sample
    hindrance: Callable[[], str]
    ahead: int
    """How many batches others work on meanwhile."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "backfill",
        help="protect an archive before it moves",
        description="Each object is done once, however often this is interrupted: the "
        "same command again goes on where it was.",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder; s3://bucket/prefix; dicom://AETITLE@host:port; a DICOMweb URL",
    )
    to = command.add_mutually_exclusive_group(required=True)
    to.add_argument("--out", metavar="TARGET", help="a folder, or s3://bucket/prefix")
    to.add_argument(
        "--node",
        type=Path,
        metavar="FILE",
        help="configuration of a node: objects are handed to its hatch as they are, and "
        "it marks them by its routes",
    )
    command.add_argument(
        "--hatch", default="", metavar="NAME", help="of the node, if it has several"
    )
    command.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="what is done (default: one in the state folder for each source and target)",
    )
    asked = command.add_argument_group("of a PACS or a DICOMweb server")
    asked.add_argument("--dates", default="", help="of studies: 20190101-20191231")
    asked.add_argument("--calling", default="MIADMARK", help="AE title (%(default)s)")
    for name in ("ca", "certificate", "key", "token-file"):
        asked.add_argument(f"--{name}", type=Path, metavar="FILE")
    pace = command.add_argument_group("how fast, and when")
    for what in ("objects", "bytes"):
        pace.add_argument(
            f"--{what}-per-s", type=float, default=0.0, metavar="N", help="at most"
        )
    pace.add_argument(
        "--hours",
        action="append",
        default=[],
        metavar="SPAN",
        help='in which it works, as "Mon-Fri 18:00-06:00"; may be given again',
    )
    pace.add_argument("--timezone", default="", help="of the hours, as Europe/Berlin")
    check = command.add_argument_group("reading back")
    check.add_argument(
        "--verify",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of outputs that are read back and restored, as 0.01",
    )
    check.add_argument(
        "--seed", default="", help="draws which ones; by default the site's keys do"
    )
    spread = command.add_argument_group("who looks for marks")
    spread.add_argument(
        "--ray", metavar="ADDRESS", help="workers of this Ray cluster, host:port"
    )
    spread.add_argument(
        "--workers", type=int, metavar="N", help=f"at most ({_WORKERS})"
    )
    spread.add_argument(
        "--gpus", action="store_true", help="each has a GPU rather than a core"
    )
    add_options(command)
    add_state(command)
    add_json(command, *_KEYS, is_long=True)
    command.set_defaults(run=_backfill)


def _backfill(options: argparse.Namespace) -> int:
    from dicom_node.backfill.filling import Filling
    from dicom_node.backfill.manifest import Heading, Manifest
    from dicom_node.backfill.pacing import Pacing
    from dicom_node.backfill.places import Access, require_apart, source_at
    from dicom_node.hours import Hours

    began = time.monotonic()
    _require_sound(options)
    hours = Hours.of(tuple(options.hours), options.timezone) if options.hours else None
    with ExitStack() as stack:
        stopping = stack.enter_context(_interrupts())
        access = Access(
            calling=options.calling,
            dates=options.dates,
            ca=options.ca,
            certificate=options.certificate,
            key=options.key,
            token_file=options.token_file,
        )
        source = stack.enter_context(closing(source_at(options.source, access)))
        job, folder = stack.enter_context(_job(options, source.address))
        require_apart(source.address, job.target.address)
        heading = Heading(
            source=source.address, target=job.target.address, how=_how(options)
        )
        path = options.manifest or folder.with_suffix(".jsonl")
        manifest = stack.enter_context(Manifest(path, heading))
        telling = stack.enter_context(
            _Telling(source, manifest, began, Report(options))
        )
        filling = Filling(
            source=source,
            target=job.target,
            manifest=manifest,
            work=job.work,
            compare=job.compare,
            sample=job.sample,
            pacing=Pacing(
                clock=time.monotonic,
                now=terminal.now,
                sleep=stopping.wait,
                objects_per_s=options.objects_per_s,
                bytes_per_s=options.bytes_per_s,
                hours=hours,
                hindrance=job.hindrance,
                told=telling.wait,
            ),
            scratch=folder,
            ahead=job.ahead,
        )
        for entry in filling.run():
            telling.tell(entry)
        return telling.end(is_stopped=stopping.is_set())


def _require_sound(options: argparse.Namespace) -> None:
    if not 0 <= options.verify <= 1:
        raise ConfigError(f"--verify {options.verify}", hint="From 0 to 1.")
    if 0 < options.objects_per_s < _SLOWEST or options.objects_per_s < 0:
        raise ConfigError(
            f"--objects-per-s {options.objects_per_s}", hint=f"{_SLOWEST} or more."
        )
    if 0 < options.bytes_per_s < 1 or options.bytes_per_s < 0:
        raise ConfigError(f"--bytes-per-s {options.bytes_per_s}", hint="1 or more.")
    if options.node is not None and options.verify:
        raise ConfigError(
            "--verify with --node",
            hint="A node verifies each object before it sends it.",
        )
    if options.hatch and options.node is None:
        raise ConfigError("--hatch without --node", hint="It is one of a node's.")
    if not options.ray and (options.workers is not None or options.gpus):
        raise ConfigError(
            "--gpus without --ray" if options.gpus else "--workers without --ray",
            hint="They are of a Ray cluster; this machine searches with what it has.",
        )
    if options.node is not None and options.ray:
        raise ConfigError(
            "--ray with --node",
            hint="The node marks: miadmark serve --ray, or its table [cluster].",
        )


def _how(options: argparse.Namespace) -> str:
    """Return whatever decides what becomes of an object."""
    if options.node is not None:
        return "handed"
    names = ("profile", "mode", "weak_marks", "weights", "recipient", "keep_codestream")
    others = ("others", "other_pixels", "mark_quantities")
    values = {name: getattr(options, name) for name in (*names, *others)}
    return json.dumps(values, default=str)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Yield what is set by the first signal to end; the second ends at once."""
    stopping = threading.Event()

    def stop(*_: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield stopping
    finally:
        for number, was in zip(numbers, before, strict=True):
            signal.signal(number, was)


@contextmanager
def _job(options: argparse.Namespace, source: str) -> Iterator[tuple[_Job, Path]]:
    """Yield what is to be done, and a folder for what lies there meanwhile."""
    if options.node is not None:
        yield _handing(options.node, options.hatch, source)
        return
    from dicom_node.backfill.comparing import require_restorable
    from dicom_node.backfill.filling import Sample
    from dicom_node.backfill.places import target_at
    from dicom_node.codec_process import CodecProcess
    from dicom_node.state import opening_with

    target = target_at(options.out)
    cluster = _cluster(options)
    state = state_in(options.state)
    keyring = state.keys()
    seed = options.seed.encode() or keyring.derive(b"backfill sample")
    with (
        protecting(options, state, keyring, cluster=cluster) as protect,
        state.ledger() as ledger,
        CodecProcess() as decode,
    ):
        compare = partial(
            require_restorable, opening=opening_with(keyring, ledger), decode=decode
        )
        sample = Sample(options.verify, seed)
        ahead = 0 if cluster is None else cluster.most
        job = _Job(target, protect, compare, sample, str, ahead)
        yield job, _folder(state, source, target)


def _cluster(options: argparse.Namespace) -> Cluster | None:
    """Return where marks are looked for; None for here."""
    from dicom_node.config import Cluster

    if not options.ray:
        return None
    most = _WORKERS if options.workers is None else options.workers
    return Cluster(ray=options.ray, most=most, gpus=options.gpus)


def _handing(node: Path, hatch: str, source: str) -> tuple[_Job, Path]:
    from dicom_node.backfill.filling import Sample, hand_over
    from dicom_node.backfill.target import HatchTarget
    from dicom_node.config_file import content_of, read
    from dicom_node.room import Room
    from dicom_node.state import State

    config = read(content_of(node), node)
    if not config.hatches:
        raise BackfillError(
            f"{node} has no [[hatch]]",
            hint="It is the folder through which a program on the node's machine hands "
            "objects in; routes see its two titles.",
        )
    hatches = [one for one in config.hatches if hatch in {"", one.name}]
    if len(hatches) != 1:
        names = ", ".join(one.name for one in config.hatches)
        raise BackfillError(
            f"{node} has no hatch {hatch!r}"
            if hatch
            else f"{node} has several hatches",
            hint=f"--hatch says which: {names}.",
        )
    target = HatchTarget(hatches[0])
    state = State(config.node.state)
    state.audit_end()  # makes the folder, for its owner only
    room = Room(state.folder, config.storage)

    def hindrance() -> str:
        if target.waiting() >= _MOST_WAITING:
            return "waits for the node to take in what was handed in"
        return room.lack() and f"waits for room: {room.lack()}"

    job = _Job(target, hand_over, lambda *_: None, Sample(0.0, b""), hindrance, 0)
    return job, _folder(state, source, target)


def _folder(state: State, source: str, target: Target) -> Path:
    """Return where what belongs to one source and one target is kept."""
    import hashlib

    name = hashlib.sha256(f"{source}\0{target.address}".encode()).hexdigest()
    return state.folder / "backfill" / name[:16]


class _Telling:
    """Tells a person or a program how it goes."""

    def __init__(
        self, source: Source, manifest: Manifest, began: float, report: Report
    ) -> None:
        """Prepare.

        Args:
            source: Knows how much there is.
            manifest: Knows what was done before.
            began: When the command did, on the monotonic clock.
            report: Tells it.
        """
        self._source, self._manifest, self._before = source, manifest, manifest.done
        self._began, self._report = began, report
        self._told: Counter[str] = Counter()
        self._verified = 0
        self._shown = ExitStack()
        self._bar: Bar

    def __enter__(self) -> Self:
        """Show the bar, and say what is known."""
        self._bar = self._shown.enter_context(self._report.working(_DOING))
        if self._report.is_json:
            self._report.tell(
                "",
                status="begun",
                done_before=self._before,
                manifest=str(self._manifest.path),
                seconds=round(time.monotonic() - self._began, 3),
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._shown.close()

    def tell(self, entry: Entry) -> None:
        """Say what became of an object."""
        self._told[entry.status] += 1
        self._verified += entry.verified
        if self._bar.is_shown:
            done = self._before + self._told.total()
            self._bar.expect(self._source.count(), done=done)
        if self._report.is_json:
            self._report.tell("", **asdict(entry))
        if entry.status == "failed":
            terminal.complain(f"{entry.source}: {entry.reason}", "")

    def wait(self, why: str) -> None:
        """Say why nothing is done; empty once something is."""
        self._bar.say(why or _DOING)

    def end(self, *, is_stopped: bool) -> int:
        """Say what was done, and return the exit code."""
        said = [f"{count} {status}" for status, count in self._told.items()]
        said += [f"{self._before} done before"] * bool(self._before)
        said += [f"{self._verified} restored and compared"] * bool(self._verified)
        self._report.say(", ".join(said) or "no objects")
        if is_stopped:
            terminal.complain(
                "stopped before everything was done", "The same command goes on."
            )
            return _INTERRUPTED
        return 1 if self._told["failed"] else 0
