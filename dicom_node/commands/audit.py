"""``audit``, ``audit verify`` and ``audit show``."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dicom_node.audit import Event
from dicom_node.commands import terminal
from dicom_node.commands.report import OTHERS, Report, add_json
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.state import State

_KEYS: Final = ("number", "at", "event", "before")
"""What every entry has."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    audit = commands.add_parser("audit", help="what happened, and whether all is there")
    add_json(audit, *_KEYS, OTHERS, is_long=True)
    audit.set_defaults(run=_audit, checkpoints=None)
    add_state(audit)
    verbs = audit.add_subparsers(metavar="VERB")
    verify = verbs.add_parser("verify", help="name the first entry that is wrong")
    verify.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="what the node has kept elsewhere: shows whether the end was cut off",
    )
    add_json(verify, "entries", "digest", "checkpoint", is_long=True)
    verify.set_defaults(run=_verify)
    show = verbs.add_parser("show", help="print entries, those that fit every filter")
    show.add_argument("--event", action="append", default=[], help="one of these")
    show.add_argument("--since", metavar="TIME", help="ISO 8601: 2026-01-31, or longer")
    show.add_argument("--until", metavar="TIME", help="likewise, not included")
    show.add_argument("--by", metavar="NAME", help="who did it")
    show.add_argument(
        "--with",
        action="append",
        default=[],
        dest="having",
        metavar="FIELD=TEXT",
        help="a field that says so: study=1.2.3, ae_title=RESEARCH",
    )
    show.add_argument("--last", type=int, metavar="N", help="only so many")
    add_json(show, *_KEYS, OTHERS, is_long=True)
    show.set_defaults(run=_show)
    for verb in (verify, show):
        # Given before the verb or after it.
        verb.add_argument(
            "--state", type=Path, default=argparse.SUPPRESS, metavar="DIR"
        )


def _audit(options: argparse.Namespace) -> int:
    if options.json:
        state, report = state_in(options.state), Report(options)
        _note_reading(state, "all entries")
        for entry in _whole(state, None, report):
            report.tell("", **entry)
        return 0
    return _verify(options)


def _verify(options: argparse.Namespace) -> int:
    state, report = state_in(options.state), Report(options)
    number, digest, signed = 0, "", 0
    for entry in _whole(state, options.checkpoints, report):
        number = entry["number"]
        if entry["event"] == Event.CHECKPOINT:
            signed = number
    with suppress(OSError):
        digest = state.audit(state.keys()).head().digest
    report.tell(
        f"{number} entries, none changed; the last is {digest}",
        entries=number,
        digest=digest,
        checkpoint=signed,
    )
    if signed:
        report.say(f"the last signed checkpoint is entry {signed}")
    if options.checkpoints is None:
        report.say("Whether the end was cut off, --checkpoints DIR shows.")
    return 0


def _show(options: argparse.Namespace) -> int:
    state = state_in(options.state)
    unknown = set(options.event) - set(Event)
    if unknown:
        raise NodeError(
            f"no event is called {unknown.pop()!r}",
            hint=f"Some of: {', '.join(Event)}.",
        )
    if not all("=" in one for one in options.having):
        raise NodeError("--with wants FIELD=TEXT")
    _note_reading(state, _filters(options))
    report = Report(options)
    found = [entry for entry in _whole(state, None, report) if _fits(entry, options)]
    for entry in found[-options.last :] if options.last else found:
        report.tell(_line(entry), **entry)
    return 0


def _whole(
    state: State, checkpoints: Path | None, report: Report
) -> Iterator[dict[str, Any]]:
    """Yield every entry of an audit that is whole.

    Raises:
        AuditError: It is not.
    """
    from dicom_node.checkpoints import confirmed, kept

    keys = state.keys()
    audit = state.audit(keys)
    elsewhere = [] if checkpoints is None else kept(checkpoints)
    verifiers = list(keys.verifiers().values())
    checked = confirmed(audit.whole(), verifiers, elsewhere)
    for entry in report.track(checked, "checking", audit.head().number):
        yield entry.values


def _note_reading(state: State, what: str) -> None:
    """Write down who is about to see entries; without that, nobody sees any."""
    audit = state.audit(state.keys())
    audit.add(Event.READ, what=what[:500], by=terminal.user())


def _filters(options: argparse.Namespace) -> str:
    said = [f"event={event}" for event in options.event]
    for name in ("since", "until", "by", "last"):
        value = getattr(options, name)
        said += [] if value is None else [f"{name}={value}"]
    return " ".join([*said, *options.having]) or "all entries"


def _fits(entry: dict[str, Any], options: argparse.Namespace) -> bool:
    at = str(entry["at"])
    return (
        (not options.event or entry["event"] in options.event)
        and (options.since is None or at >= options.since)
        and (options.until is None or at < options.until)
        and (options.by is None or entry.get("by") == options.by)
        and all(
            name in entry and str(entry[name]) == text
            for name, _, text in (one.partition("=") for one in options.having)
        )
    )


def _line(entry: dict[str, Any]) -> str:
    facts = " ".join(
        f"{name}={json.dumps(value) if ' ' in str(value) else value}"
        for name, value in entry.items()
        if name not in _KEYS and value != ""
    )
    return f"{entry['number']} {entry['at']} {entry['event']}: {facts}".rstrip(": ")
