"""``backfill``: protect an archive before it moves."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.commands import terminal
from dicom_node.commands.backfill_plan import WORKERS, plan_of
from dicom_node.commands.backfill_progress import KEYS, Progress
from dicom_node.commands.protecting import add_options
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import add_state
from dicom_node.errors import ConfigError
from dicom_node.stopping import Stopping

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_SLOWEST: Final = 0.02
"""Objects a second. A throttle that remembers more than a minute does not believe it."""


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
    spread.add_argument("--workers", type=int, metavar="N", help=f"at most ({WORKERS})")
    spread.add_argument(
        "--gpus", action="store_true", help="each has a GPU rather than a core"
    )
    add_options(command)
    add_state(command)
    add_json(command, *KEYS, is_long=True)
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
        plan, folder = stack.enter_context(plan_of(options, source.address))
        require_apart(source.address, plan.target.address)
        heading = Heading(
            source=source.address, target=plan.target.address, how=_how(options)
        )
        path = options.manifest or folder.with_suffix(".jsonl")
        manifest = stack.enter_context(Manifest(path, heading))
        telling = stack.enter_context(
            Progress(source, manifest, began, Report(options))
        )
        filling = Filling(
            source=source,
            target=plan.target,
            manifest=manifest,
            work=plan.work,
            compare=plan.compare,
            sample=plan.sample,
            pacing=Pacing(
                clock=time.monotonic,
                now=terminal.now,
                sleep=stopping.wait,
                objects_per_s=options.objects_per_s,
                bytes_per_s=options.bytes_per_s,
                hours=hours,
                hindrance=plan.hindrance,
                told=telling.wait,
            ),
            scratch=folder,
            ahead=plan.ahead,
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
def _interrupts() -> Iterator[Stopping]:
    """Yield what is set by the first signal to end; the second ends at once."""
    stopping = Stopping()

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
