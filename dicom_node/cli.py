"""The command line: arguments to calls, outcomes to sentences, errors to exit codes.

0: everything was done. 1: something was not, and standard error says what. 2: the
command was misused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from dicom_node import __version__, files, log
from dicom_node.config import Profile
from dicom_node.errors import NodeError
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dicom_node.node import State

_EXAMPLES = """\
examples:
  miadmark protect study/ --out marked/         mark a study
  miadmark restore marked/ --out original/      and take the mark off again
  miadmark inspect marked/1.dcm                 what a file says of its mark
  miadmark serve --config node.toml             run the node
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (NodeError, MiadMarkError) as error:
        _complain(str(error), error.hint)
        return 1
    except OSError as error:
        _complain(f"{error.filename or 'a file'}: {error.strerror}", "")
        return 1
    except KeyboardInterrupt:
        return 130
    else:
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="miadmark",
        description="Send medical images out without giving them away to every AI.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

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
        help="fast looks a quarter as long, and misleads less; logo is a visible "
        "notice, off what matters in the image (%(default)s)",
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

    _add_keys(commands)
    _add_grant(commands)
    _add_node(commands)
    _add_science(commands)
    return parser


def _add_paths(command: argparse.ArgumentParser) -> None:
    command.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    _add_state(command)
    command.add_argument("--json", action="store_true", help="one object a line")


def _add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        type=Path,
        default=_user_state(),
        metavar="DIR",
        help="keys and ledger; made on first use (%(default)s)",
    )


def _add_keys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    keys = commands.add_parser("keys", help="the keys of this site")
    verbs = keys.add_subparsers(required=True, metavar="VERB")
    init = verbs.add_parser("init", help="make them")
    init.set_defaults(run=_keys_init)
    export = verbs.add_parser(
        "export-recipient", help="write the site file that others need"
    )
    export.add_argument("--name", default="site", help="how others will call this site")
    export.add_argument("--out", type=Path, metavar="FILE", help="else standard output")
    export.set_defaults(run=_keys_export)
    listing = verbs.add_parser("list", help="show what there is; nothing secret")
    listing.set_defaults(run=_keys_list)
    trust = verbs.add_parser("trust", help="open what another site has sealed")
    trust.add_argument("file", type=Path, metavar="FILE")
    trust.set_defaults(run=partial(_keys_add, as_recipient=False, as_trusted=True))
    recipient = verbs.add_parser("add-recipient", help="seal to another site as well")
    recipient.add_argument("file", type=Path, metavar="FILE")
    recipient.set_defaults(run=partial(_keys_add, as_recipient=True, as_trusted=False))
    for verb in (init, export, listing, trust, recipient):
        _add_state(verb)


def _add_grant(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    grant = commands.add_parser("grant", help="who may have originals")
    verbs = grant.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="give a grant")
    add.add_argument("--ae-title", required=True)
    to = add.add_mutually_exclusive_group(required=True)
    to.add_argument(
        "--certificate", type=Path, metavar="FILE", help="the receiver's, PEM"
    )
    to.add_argument(
        "--insecure-address",
        metavar="HOST:PORT",
        help="a receiver without TLS: whoever answers there gets originals",
    )
    add.add_argument("--days", type=int, default=365)
    add.set_defaults(run=_grant_add)
    listing = verbs.add_parser("list", help="show every grant ever given")
    listing.set_defaults(run=_grant_list)
    revoke = verbs.add_parser("revoke", help="take a grant back")
    revoke.add_argument("id", type=int)
    revoke.set_defaults(run=_grant_revoke)
    for verb in (add, listing, revoke):
        _add_state(verb)


def _add_node(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, run, text in (
        ("serve", _serve, "run the node"),
        ("worker", _work, "what serve starts to filter and send"),
        ("status", _status, "what the queue of a node holds"),
        ("release", _release, "try held jobs again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--config", type=Path, required=True, metavar="FILE")
        command.set_defaults(run=run)
        if run is _work:
            command.add_argument("--parent", type=int, required=True, metavar="PID")
        if run is _release:
            command.add_argument(
                "job", type=int, nargs="*", help="else all that are held"
            )
    selftest = commands.add_parser(
        "selftest", help="receive, mark, send, strip, verify; on loopback"
    )
    selftest.set_defaults(run=_selftest)
    demo = commands.add_parser("demo", help="the whole story with pictures")
    demo.add_argument("--out", type=Path, default=Path("demo-output"), metavar="DIR")
    demo.set_defaults(run=_demo)


def _add_science(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", help="make weights")
    kinds = train.add_subparsers(required=True, metavar="WHAT")
    for kind, meaning, run in (
        ("surrogates", "what the search looks through", _train_surrogates),
        ("victims", "what marks are scored against", _train_victims),
    ):
        verb = kinds.add_parser(kind, help=meaning)
        verb.add_argument("--data", type=Path, required=True, metavar="DIR")
        verb.add_argument("--out", type=Path, required=True, metavar="DIR")
        verb.add_argument("--set", action="append", metavar="NAME", dest="sets")
        verb.add_argument("--network", action="append", metavar="NAME")
        verb.set_defaults(run=run)
    evaluate = commands.add_parser("evaluate", help="how well marks mislead")
    evaluate.add_argument("--data", type=Path, required=True, metavar="DIR")
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR")
    evaluate.add_argument(
        "--suite",
        choices=("quick", "full"),
        default="quick",
        help="some images and purifiers, or all of both (%(default)s)",
    )
    evaluate.add_argument("--set", action="append", metavar="NAME", dest="sets")
    evaluate.add_argument(
        "--engine", action="append", metavar="NAME", help="else the profile standard"
    )
    evaluate.add_argument("--weights", type=Path, help="else the shipped ones")
    evaluate.add_argument(
        "--readme", type=Path, metavar="FILE", help="write the table into this file"
    )
    evaluate.set_defaults(run=_evaluate)


def _user_state() -> Path:
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "miadmark"


def _state(folder: Path) -> State:
    from dicom_node.node import State

    return State(folder)


def _protect(options: argparse.Namespace) -> int:
    from dicom_node.keys.file import read_site
    from dicom_node.node import SHIPPED_WEIGHTS, WithRecipients, batch_marker

    todo = files.tasks(options.paths, options.out)
    state = _state(options.state)
    sites = [read_site(file) for file in options.recipient]
    keys = WithRecipients(state.keys(), [site.recipient for site in sites])
    mark_all = batch_marker(
        options.weights or SHIPPED_WEIGHTS, keys, _now, Profile(options.profile)
    )
    with state.ledger() as ledger:
        outcomes = files.protect(
            todo,
            mark_all=mark_all,
            ledger=ledger,
            clock=_now,
            holds_others=options.hold_others,
        )
        return _tell(outcomes, len(todo), "marking", as_json=options.json)


def _restore(options: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from dicom_node.keys.file import read_private
    from miadmark_core.sealing.recipients import Identity

    todo = files.tasks(options.paths, options.out)
    state = _state(options.state)
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
            _complain(f"{outcome.source}: {outcome.reason}", outcome.hint)
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
            _complain(f"{path}: {error}", getattr(error, "hint", ""))
            code = 1
            continue
        if options.json:
            print(json.dumps({"in": str(path), **facts}))
        else:
            print(path)
            for name, value in facts.items():
                print(f"  {name.replace('_', ' ')}: {value}")
    return code


def _keys_init(options: argparse.Namespace) -> int:
    from dicom_node.keys.file import KeyFolder

    folder = options.state / "keys"
    made = KeyFolder.make(folder)
    print(f"made keys in {folder}; fingerprint {made.site('').fingerprint}")
    print("Back this folder up now: what is sealed to it opens with nothing else.")
    return 0


def _keys_export(options: argparse.Namespace) -> int:
    text = _state(options.state).keys().site(options.name).to_text()
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, "utf-8")
        print(f"wrote {options.out}: public keys, nothing secret")
    return 0


def _keys_list(options: argparse.Namespace) -> int:
    keys = _state(options.state).keys()
    print(f"this site: fingerprint {keys.site('').fingerprint}")
    for part, sites in (("sealed to", "recipients"), ("trusted", "trusted")):
        for site in keys.sites(sites):
            print(f"{part}: {site.name}, fingerprint {site.fingerprint}")
    return 0


def _keys_add(
    options: argparse.Namespace, *, as_recipient: bool, as_trusted: bool
) -> int:
    from dicom_node.keys.file import read_site

    site = read_site(options.file)
    keys = _state(options.state).keys()
    keys.add_site(site, as_recipient=as_recipient, as_trusted=as_trusted)
    print(f"{site.name}: compare its fingerprint by telephone: {site.fingerprint}")
    return 0


def _grant_add(options: argparse.Namespace) -> int:
    from cryptography import x509

    from dicom_node.grants import fingerprint

    shown = ""
    if options.certificate is not None:
        try:
            pem = options.certificate.read_bytes()
            shown = fingerprint(x509.load_pem_x509_certificate(pem))
        except (OSError, ValueError) as error:
            raise NodeError(f"{options.certificate} is no certificate (PEM)") from error
    else:
        _complain(
            "a grant without TLS: whoever answers at that address gets originals", ""
        )
    with _state(options.state).grants() as grants:
        number = grants.add(
            ae_title=options.ae_title,
            fingerprint=shown,
            address=options.insecure_address or "",
            not_after=_now() + timedelta(days=options.days),
            granted_by=_user(),
            now=_now(),
        )
    print(f"grant {number} for {options.ae_title}, {options.days} days")
    return 0


def _grant_list(options: argparse.Namespace) -> int:
    with _state(options.state).grants() as grants:
        for grant in grants.all():
            to = f"key {grant.fingerprint}" if grant.fingerprint else grant.address
            state = (
                "revoked" if grant.is_revoked else f"until {grant.not_after:%Y-%m-%d}"
            )
            print(f"{grant.id}: {grant.ae_title}, {to}, {state}, by {grant.granted_by}")
    return 0


def _grant_revoke(options: argparse.Namespace) -> int:
    with _state(options.state).grants() as grants:
        if not grants.revoke(options.id, revoked_by=_user(), now=_now()):
            raise NodeError(
                f"there is no grant {options.id}", hint="miadmark grant list"
            )
    print(f"grant {options.id} is revoked; what was sent before stays sent")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from dicom_node.config import load
    from dicom_node.node import serve

    log.configure()
    config = load(options.config)

    def ready(port: int) -> None:
        print(
            f"{config.node.ae_title} listens on {config.node.bind}:{port}", flush=True
        )

    serve(config, options.config, ready)
    return 0


def _work(options: argparse.Namespace) -> int:
    from dicom_node.config import load
    from dicom_node.node import work

    log.configure()
    work(load(options.config), options.parent)
    return 0


def _status(options: argparse.Namespace) -> int:
    from dicom_node.config import load

    queue = _state(load(options.config).node.state).queue()
    counts = {state.value: count for state, count in queue.counts().items()}
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    for job in queue.held():
        print(f"{job.id}: held {job.sop_instance_uid} on {job.route}: {job.reason}")
    queue.close()
    return 0


def _release(options: argparse.Namespace) -> int:
    from dicom_node.config import load

    queue = _state(load(options.config).node.state).queue()
    wanted = options.job or [job.id for job in queue.held()]
    released = [number for number in wanted if queue.release(number, _now())]
    queue.close()
    print(f"released {len(released)} of {len(wanted)}")
    return 0 if len(released) == len(wanted) else 1


def _selftest(_: argparse.Namespace) -> int:
    from dicom_node.demo.selftest import selftest

    return selftest()


def _demo(options: argparse.Namespace) -> int:
    from dicom_node.demo.story import demo

    return demo(options.out)


def _train_surrogates(options: argparse.Namespace) -> int:
    from miadmark_core.search.finder import best_device
    from miadmark_core.training.surrogates import (
        SHIPPED_SETS,
        SURROGATES,
        train_surrogates,
    )

    train_surrogates(
        options.data,
        options.out,
        sets=options.sets or list(SHIPPED_SETS),
        networks=options.network or [recipe.name for recipe in SURROGATES],
        device=best_device(),
        report=partial(print, flush=True),
    )
    return 0


def _train_victims(options: argparse.Namespace) -> int:
    from miadmark_core.evaluation.victims import VICTIMS, train_victims
    from miadmark_core.search.finder import best_device
    from miadmark_core.training.recipe import CARDS

    train_victims(
        options.data,
        options.out,
        sets=options.sets or list(CARDS),
        names=options.network or [recipe.name for recipe in VICTIMS],
        device=best_device(),
        report=partial(print, flush=True),
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from dicom_node.demo.trial import ENGINES, engine_maker, evaluate
    from dicom_node.keys.file import KeyFolder
    from dicom_node.node import SHIPPED_WEIGHTS
    from miadmark_core.evaluation.suite import SUITES, Run
    from miadmark_core.search.finder import best_device
    from miadmark_core.training.recipe import CARDS

    unknown = set(options.engine or []) - set(ENGINES)
    if unknown:
        raise NodeError(
            f"no engine {min(unknown)!r}", hint=f"Known: {', '.join(ENGINES)}."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    folder = options.out / "keys"
    keys = KeyFolder(folder) if KeyFolder.exists(folder) else KeyFolder.make(folder)
    started = _now()
    console = Console(stderr=True)
    with console.status("measuring") as status:

        def report(words: str) -> None:
            status.update(words)
            if not console.is_terminal:
                print(words, file=sys.stderr, flush=True)

        found = evaluate(
            Run(
                data=options.data,
                out=options.out,
                weights=options.weights or SHIPPED_WEIGHTS,
                device=best_device(),
                make_engine=engine_maker(keys, _now),
                report=report,
            ),
            SUITES[options.suite],
            sets=options.sets or list(CARDS),
            engines=options.engine or ["standard"],
            readme=options.readme,
        )
    for sentence in found["findings"]:
        _complain(sentence, "")
    print(f"wrote {options.out / 'results.json'} and report.html in {_now() - started}")
    return 1 if found["findings"] else 0


def _now() -> datetime:
    return datetime.now(UTC)


def _user() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())


def _complain(message: str, hint: str) -> None:
    print(f"miadmark: error: {message}", file=sys.stderr)
    if hint:
        print(f"miadmark: hint: {hint}", file=sys.stderr)
