"""``recovery``, ``keys recover`` and ``ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.audit import Event
from dicom_node.commands import terminal
from dicom_node.commands.outcomes import KEYS, tell
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from miadmark_core.sealing.recipients import Identity


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    recovery = commands.add_parser("recovery", help="the key that people keep")
    verbs = recovery.add_subparsers(required=True, metavar="VERB")
    split = verbs.add_parser("split", help="make it, and write its shares")
    split.add_argument("--out", type=Path, required=True, metavar="DIR")
    split.add_argument("--shares", type=int, default=5)
    split.add_argument("--threshold", type=int, default=3, help="how many are needed")
    split.set_defaults(run=_split)
    add_json(split, "out", "shares", "threshold", is_long=False)
    add_state(split)
    rehearse = verbs.add_parser("rehearse", help="see whether shares join to this key")
    _add_shares(rehearse)
    rehearse.set_defaults(run=_rehearse)
    add_json(rehearse, "joins", is_long=False)
    add_state(rehearse)

    ledger = commands.add_parser("ledger", help="the second copies of sealed records")
    verbs = ledger.add_subparsers(required=True, metavar="VERB")
    rebuild = verbs.add_parser("rebuild", help="make it again from marked objects")
    rebuild.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    _add_shares(rebuild, is_required=False)
    rebuild.set_defaults(run=_rebuild)
    add_json(rebuild, "in", "status", is_long=True)
    add_state(rebuild)
    for name, run, text, keys in (
        ("copy", _copy, "write a copy, for another node of this site", ("out",)),
        (
            *("merge", _merge, "remember what a copy of another node's does, too"),
            ("records", "marks", "names", "differing"),
        ),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("file", type=Path, metavar="FILE", help="the copy")
        verb.set_defaults(run=run)
        add_json(verb, *keys, is_long=True)
        add_state(verb)
    shred = verbs.add_parser(
        "shred", help="destroy what this site opens an object with"
    )
    shred.add_argument("path", type=Path, metavar="FILE", help="the marked object")
    shred.set_defaults(run=_shred)
    add_json(shred, "record", "epoch", is_long=True)
    add_state(shred)


def add_recover(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``keys recover``, which needs neither node nor ledger."""
    recover = verbs.add_parser(
        "recover",
        help="restore objects with the recovery key's shares, and nothing else",
    )
    recover.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    recover.add_argument("--out", type=Path, required=True, metavar="DIR")
    recover.add_argument(
        "--site",
        type=Path,
        required=True,
        nargs="+",
        metavar="FILE",
        help="who marked them: a file for each signing key that the site has had",
    )
    add_json(recover, *KEYS, is_long=True)
    recover.add_argument("--accept-renamed", action="store_true")
    _add_shares(recover)
    recover.set_defaults(run=_recover)


def _add_shares(verb: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    verb.add_argument(
        "--shares",
        type=Path,
        nargs="+",
        required=is_required,
        default=[],
        metavar="FILE",
        help="files with one share each; as many as are needed",
    )


def _joined(shares: Sequence[Path]) -> Identity:
    from dicom_node.keys.recovery import join

    texts = []
    for file in shares:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise NodeError(f"{file} cannot be read") from error
        texts.append(" ".join(line for line in lines if not line.startswith("#")))
    return join(texts)


def _split(options: argparse.Namespace) -> int:
    from dicom_node.durable import write_durably
    from dicom_node.keys.recovery import split

    state = state_in(options.state)
    keys = state.keys()
    if keys.recovery() is not None:
        raise NodeError(
            "there is a recovery key already",
            hint="Its holders open what was sealed so far. A second one would need a "
            "second circle of people: make fresh keys for that.",
        )
    identity, shares = split(threshold=options.threshold, shares=options.shares)
    options.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken = [*options.out.iterdir()]
    if taken:
        raise NodeError(f"{options.out} is not empty", hint="Choose another --out.")
    for number, share in enumerate(shares, 1):
        head = (
            f"# Share {number} of {len(shares)} of a recovery key; {options.threshold} "
            "are needed.\n# Secret: one person keeps it on paper, away from others.\n"
        )
        text = f"{head}{share}\n"
        write_durably(options.out / f"share-{number}.txt", text.encode("ascii"))
    site = keys.site("recovery").to_text().encode("utf-8")
    write_durably(options.out / "site.site", site)
    keys.set_rules(recovery=identity.recipient)
    state.audit(keys).add(
        Event.KEYS,
        did="recovery key",
        shares=options.shares,
        threshold=options.threshold,
        by=terminal.user(),
    )
    report = Report(options)
    report.tell(
        f"wrote {len(shares)} shares to {options.out}; {options.threshold} are needed",
        out=str(options.out),
        shares=len(shares),
        threshold=options.threshold,
    )
    report.say(
        "Give each to one person, with a copy of site.site; then delete the folder.",
        "Objects are sealed to it from now on, those marked before are not.",
        "Twice a year: miadmark recovery rehearse --shares FILE...",
    )
    return 0


def _rehearse(options: argparse.Namespace) -> int:
    state = state_in(options.state)
    keys = state.keys()
    if _joined(options.shares).recipient != keys.recovery():
        raise NodeError("these shares join to another key than this site seals to")
    state.audit(keys).add(Event.KEYS, did="rehearsed recovery", by=terminal.user())
    said = "the shares join to the recovery key of this site"
    Report(options).tell(said, joins=True)
    return 0


def _recover(options: argparse.Namespace) -> int:
    from dicom_node import files, restoration
    from dicom_node.codec_process import CodecProcess
    from dicom_node.keys.site import read_site
    from dicom_node.opening import Opening
    from miadmark_core.sealing.signing import TrustedSigners

    sites = [read_site(file) for file in options.site]
    opening = Opening(
        openers=[_joined(options.shares)],
        trusted=TrustedSigners({site.verifier.id: site.trust for site in sites}),
        accepts_renamed=options.accept_renamed,
    )
    todo = files.tasks(options.paths, options.out)
    with CodecProcess() as decode:
        outcomes = restoration.restore(todo, opening=lambda _: opening, decode=decode)
        return tell(outcomes, len(todo), "recovering", Report(options))


def _rebuild(options: argparse.Namespace) -> int:
    from dicom_node import files
    from dicom_node.codec_process import CodecProcess
    from dicom_node.rebuilding import rebuild

    state = state_in(options.state)
    keys, now = state.keys(), terminal.now()
    audit = state.audit(keys)
    recovery = [_joined(options.shares)] if options.shares else []
    counts: dict[str, int] = {}
    report = Report(options)
    with state.ledger() as ledger, CodecProcess() as decode:
        shredded = {
            bytes.fromhex(str(entry["record"]))
            for entry in audit.entries()
            if entry["event"] == Event.SHREDDED
        }
        paths = [task.source for task in files.tasks(options.paths, Path())]
        outcomes = rebuild(paths, keys, ledger, recovery, shredded, now, decode)
        for path, outcome in report.track(outcomes, "reading", len(paths)):
            counts[outcome] = counts.get(outcome, 0) + 1
            if report.is_json:
                report.tell("", **{"in": str(path)}, status=outcome)
            if outcome == "failed":
                terminal.complain(f"{path} cannot be read", "")
    audit.add(Event.KEYS, did="rebuilt ledger", by=terminal.user(), **counts)
    report.say(
        ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "no files"
    )
    return 1 if counts.get("failed") or counts.get("closed") else 0


def _copy(options: argparse.Namespace) -> int:
    from dicom_node.ledger_merge import copy

    if options.file.exists():
        raise NodeError(f"{options.file} is there already", hint="Name a new file.")
    report = Report(options)
    with report.working("copying"):
        copy(_own_ledger(options), options.file)
    report.tell(
        f"wrote {options.file}: sealed records; guard it as you guard the ledger",
        out=str(options.file),
    )
    return 0


def _merge(options: argparse.Namespace) -> int:
    import shutil
    import tempfile

    from dicom_node.ledger_merge import merge

    path, report = _own_ledger(options), Report(options)
    state = state_in(options.state)
    with tempfile.TemporaryDirectory(dir=options.state) as folder:
        # It is brought up to date for that, and whoever has lent it has it as it was.
        other = Path(folder) / "ledger.sqlite"
        shutil.copyfile(options.file, other)
        with report.working("merging"):
            merged = merge(path, other)
    state.audit(state.keys()).add(
        Event.KEYS, did="merged ledger", by=terminal.user(), **merged._asdict()
    )
    report.tell(
        f"{merged.records} records, {merged.marks} marks and {merged.names} new names",
        **merged._asdict(),
    )
    if not merged.differing:
        return 0
    terminal.complain(
        f"{merged.differing} originals went out with two different marks",
        "Two marks of one original give each other away. Tell whoever looks after "
        "security.",
    )
    return 1


def _own_ledger(options: argparse.Namespace) -> Path:
    state = state_in(options.state)
    if state.attached is not None:
        raise NodeError(
            "the ledger is in a database", hint="Nodes that share it have one memory."
        )
    state.ledger().__exit__(None, None, None)  # made on first use
    return state.folder / "ledger.sqlite"


def _shred(options: argparse.Namespace) -> int:
    from dicom_node import private_block
    from dicom_node.codec_process import CodecProcess
    from dicom_node.elements import Limits
    from dicom_node.filters.strip import marked_digest
    from dicom_node.instance import OpenInstance
    from dicom_node.rewrapping import shred
    from miadmark_core.sealing.seal import believed

    instance = OpenInstance.read(options.path, Limits())
    record = private_block.find(instance.elements)
    if record is None:
        raise NodeError("the object carries no record", hint="Is it the marked one?")
    state = state_in(options.state)
    keys = state.keys()
    # Whoever hands over a file must not choose which other object is lost.
    header = believed(record, keys.trusted())
    with CodecProcess() as decode:
        marked_digest(instance, header, decode)
    if header.tenant != keys.ring.tenant:
        raise NodeError("another site has sealed this object: it is theirs to shred")
    record_id = header.record_id
    report = Report(options)
    with state.ledger() as ledger, report.working("sealing all other records anew"):
        ledger.require_standing(header, record.header)
        state.audit(keys).add(
            Event.SHREDDED, record=record_id.hex(), by=terminal.user()
        )
        # First, since a record that is shredded cannot be shredded again.
        state.codestreams().delete(record_id)
        if keys.nodes.taken:
            ledger.shred(record_id, terminal.user(), terminal.now())
            report.tell(
                f"record {record_id.hex()} is gone here; its epoch ends at the lead:",
                record=record_id.hex(),
                epoch=None,
            )
            report.say(
                "miadmark keys end-epochs, then nodes issue. Until then its key exists."
            )
            return 0
        epoch = shred(record_id, keys, ledger, by=terminal.user(), now=terminal.now())
    report.tell(
        f"record {record_id.hex()} is shredded; epoch {epoch} has begun",
        record=record_id.hex(),
        epoch=epoch,
    )
    report.say(
        "Still able to open it: the recovery key's holders, direct recipients, and a",
        "backup of the key folder until: miadmark keys rotate root",
    )
    return 0
