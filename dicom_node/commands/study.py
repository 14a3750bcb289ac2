"""``protect``, ``restore`` and ``inspect``: files in, files out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from dicom_node import files
from dicom_node.commands import terminal
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError
from dicom_node.marking import Marking, Profile, WeakMarks
from miadmark_core.errors import MiadMarkError
from miadmark_core.mode import Mode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    protect = commands.add_parser("protect", help="mark files and folders")
    _add_paths(protect)
    protect.add_argument(
        "--recipient",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="site file of another site that can open the record as well",
    )
    protect.add_argument(
        "--profile",
        choices=[profile.value for profile in Profile],
        default=Profile.STANDARD.value,
        help="fast draws marks at once, which mislead less; strong looks three times "
        "as long; logo is a visible notice, off what matters (%(default)s)",
    )
    protect.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        default=Mode.AUTO.value,
        help="lead classifiers to wrong answers, or to answers drawn by lot; auto does "
        "the second where there are two classes (%(default)s)",
    )
    protect.add_argument(
        "--weak-marks",
        choices=[policy.value for policy in WeakMarks],
        default=WeakMarks.HOLD.value,
        help="what becomes of a mark that does not mislead whom it was tried on "
        "(%(default)s)",
    )
    protect.add_argument("--weights", type=Path, help="surrogates of this site")
    protect.add_argument(
        "--hold-others",
        action="store_true",
        help="fail objects without a picture (reports, segmentations), not pass them",
    )
    protect.set_defaults(run=_protect)

    restore = commands.add_parser("restore", help="take the mark off again")
    _add_paths(restore)
    restore.add_argument(
        "--identity", type=Path, metavar="FILE", help="private key (PEM) to open with"
    )
    restore.set_defaults(run=_restore)

    inspect = commands.add_parser("inspect", help="what a file says of its mark")
    inspect.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    inspect.add_argument("--json", action="store_true")
    inspect.set_defaults(run=_inspect)


def _add_paths(command: argparse.ArgumentParser) -> None:
    command.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_state(command)
    command.add_argument("--json", action="store_true", help="one object a line")


def _protect(options: argparse.Namespace) -> int:
    from dicom_node.keys.file import read_site
    from dicom_node.node import WithRecipients, batch_marker

    todo = files.tasks(options.paths, options.out)
    state = state_in(options.state)
    sites = [read_site(file) for file in options.recipient]
    keys = WithRecipients(state.keys(), [site.recipient for site in sites])
    mark_all = batch_marker(
        options.weights,
        keys,
        terminal.now,
        Marking(
            profile=Profile(options.profile),
            mode=Mode(options.mode),
            weak_marks=WeakMarks(options.weak_marks),
        ),
    )
    with state.ledger() as ledger:
        outcomes = files.protect(
            todo,
            mark_all=mark_all,
            ledger=ledger,
            clock=terminal.now,
            holds_others=options.hold_others,
        )
        return _tell(outcomes, len(todo), "marking", as_json=options.json)


def _restore(options: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from dicom_node.keys.file import read_private
    from miadmark_core.sealing.recipients import Identity

    todo = files.tasks(options.paths, options.out)
    state = state_in(options.state)
    keys = state.keys()
    identities = keys.identities()
    if options.identity is not None:
        key = read_private(options.identity)
        if not isinstance(key, X25519PrivateKey):
            raise NodeError(f"{options.identity} is no X25519 key")
        identities = [Identity(key)]
    with state.ledger() as ledger:
        outcomes = files.restore(
            todo, identities=identities, trusted=keys.trusted(), ledger=ledger
        )
        return _tell(outcomes, len(todo), "restoring", as_json=options.json)


def _tell(
    outcomes: Iterable[files.Outcome], count: int, verb: str, *, as_json: bool
) -> int:
    """Report every outcome; 1 if one of them failed."""
    told: Counter[str] = Counter()
    bar = Console(stderr=True)
    for outcome in track(
        outcomes, verb, total=count, console=bar, disable=not bar.is_terminal
    ):
        told[outcome.status] += 1
        if as_json:
            print(json.dumps(outcome.as_json()), flush=True)
        if outcome.status == "failed":
            terminal.complain(f"{outcome.source}: {outcome.reason}", outcome.hint)
    if not as_json:
        print(", ".join(f"{n} {status}" for status, n in told.items()) or "no files")
    return 1 if told["failed"] else 0


def _inspect(options: argparse.Namespace) -> int:
    from dicom_node.inspection import inspect

    code = 0
    for path in options.paths:
        try:
            facts = inspect(path.read_bytes())
        except (NodeError, MiadMarkError, OSError) as error:
            terminal.complain(f"{path}: {error}", getattr(error, "hint", ""))
            code = 1
            continue
        if options.json:
            print(json.dumps({"in": str(path), **facts}))
        else:
            print(path)
            for name, value in facts.items():
                print(f"  {name.replace('_', ' ')}: {value}")
    return code
