"""``protect`` and ``restore``: files in, files out."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.commands.outcomes import KEYS, tell
from dicom_node.commands.protecting import add_options, protecting
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse

    from dicom_node.codestreams import Given
    from dicom_node.filters.strip import Restored
    from dicom_node.instance import Identity, OpenInstance
    from dicom_node.keys.desk import DeskClient
    from dicom_node.keys.keyring import Keyring
    from dicom_node.listing import Listed
    from dicom_node.listings import Listings
    from dicom_node.opening import Opening
    from miadmark_core.sealing.stanza import Opener


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    protect = commands.add_parser("protect", help="mark files and folders")
    _add_paths(protect, "objects")
    add_options(protect)
    protect.add_argument(
        "--listing",
        action="store_true",
        help="write a list of what was marked as well: a Key Object Selection a study",
    )
    protect.set_defaults(run=_protect)

    restore = commands.add_parser("restore", help="take the mark off again")
    _add_paths(restore)
    restore.add_argument(
        "--identity", type=Path, metavar="FILE", help="a seed to open with as well"
    )
    restore.add_argument(
        "--accept-renamed",
        action="store_true",
        help="give back originals of objects that an archive has renamed",
    )
    desk = restore.add_argument_group("ask the desk of the site that marked them")
    desk.add_argument("--desk", metavar="URL", help="https://host:port")
    desk.add_argument("--gateway", metavar="FINGERPRINT", help="of that site")
    for name in ("ca", "certificate", "key"):
        desk.add_argument(f"--{name}", type=Path, metavar="FILE")
    desk.add_argument("--ae-title", default="MIADMARK")
    desk.add_argument("--purpose", default="treatment")
    restore.set_defaults(run=_restore)


def _add_paths(command: argparse.ArgumentParser, *keys: str) -> None:
    command.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_state(command)
    add_json(command, *KEYS, *keys, is_long=True)


def _protect(options: argparse.Namespace) -> int:
    from dicom_node import files
    from dicom_node.listing import Listed

    todo = files.tasks(options.paths, options.out)
    state = state_in(options.state)
    listed: list[Listed] = []
    keyring = state.keys()

    def sent(instance: OpenInstance) -> None:
        listed.append(Listed.of(instance))

    with protecting(options, state, keyring, sent) as protect:
        code = tell(protect(todo), len(todo), "marking", Report(options))
    if not options.listing:
        return code
    with closing(state.listings(keyring)) as listings:
        return _write_listings(listed, keyring, listings, options) or code


def _write_listings(
    listed: list[Listed],
    keyring: Keyring,
    listings: Listings,
    options: argparse.Namespace,
) -> int:
    """Write a list for each study; 1 if one could not be written."""
    from dicom_node import files
    from dicom_node.listing import listing

    report, code = Report(options), 0
    studies: dict[str, list[Listed]] = {}
    for one in listed:
        studies.setdefault(one.study_instance_uid, []).append(one)
    for objects in studies.values():
        try:
            document = listing(objects, keyed=keyring.derive, now=terminal.now())
            listings.remember(document)  # should it come to the node of this site
            name = f"listing-{document.meta.MediaStorageSOPInstanceUID}.dcm"
            files.write(options.out / name, document.chunks())
        except (NodeError, OSError) as error:
            terminal.complain(f"a listing: {error}", getattr(error, "hint", ""))
            code = 1
            continue
        report.tell(
            f"{options.out / name} lists {len(objects)} objects",
            out=str(options.out / name),
            status="listed",
            objects=len(objects),
        )
    return code


def _restore(options: argparse.Namespace) -> int:
    from dicom_node import files, restoration
    from dicom_node.audit import Event
    from dicom_node.codec_process import CodecProcess
    from dicom_node.codestreams import Copy
    from dicom_node.state import opening_with

    todo = files.tasks(options.paths, options.out)
    state = state_in(options.state)
    keys = state.keys()
    audit = state.audit(keys)
    asked = _desk(options, keys)

    def note(restored: Restored, identity: Identity, copy: Copy) -> None:
        if copy is Copy.DAMAGED:
            audit.add(
                Event.DAMAGED,
                how="restored",
                record=restored.record_id.hex(),
                by=terminal.user(),
            )
        audit.add(
            Event.RENAMED if restored.is_renamed else Event.RELEASED,
            how="restored",
            record=restored.record_id.hex(),
            study=identity.study_instance_uid,
            by=terminal.user(),
        )

    with state.ledger() as ledger, CodecProcess() as decode:
        site = opening_with(keys, ledger)
        openers = [*site.openers, *_identity(options.identity)]

        def opening(study: str) -> Opening:
            desk = [] if asked is None else [asked.opener(study)]
            return replace(
                site,
                openers=[*openers, *desk],
                accepts_renamed=options.accept_renamed,
            )

        codestreams = state.codestreams()

        def as_it_came(restored: Restored, opening: Opening) -> Given:
            header = ledger.header_of(restored.record_id)
            return codestreams.as_it_came(restored.file, header, opening.openers)

        outcomes = restoration.restore(
            todo, opening=opening, note=note, as_it_came=as_it_came, decode=decode
        )
        return tell(outcomes, len(todo), "restoring", Report(options))


def _identity(file: Path | None) -> list[Opener]:
    from dicom_node.keys.roots import secret_in
    from miadmark_core.sealing.recipients import Identity

    if file is None:
        return []
    try:
        return [Identity.of_seed(bytes.fromhex(secret_in(file).decode("ascii")))]
    except ValueError as error:
        raise NodeError(
            f"{file} holds no identity",
            hint="32 bytes in hexadecimal: miadmark keys new-identity makes one.",
        ) from error


def _desk(options: argparse.Namespace, keys: Keyring) -> DeskClient | None:
    if options.desk is None:
        return None
    from dicom_node.config import RemoteDesk
    from dicom_node.keys.desk import DeskClient

    needed = ("gateway", "ca", "certificate", "key")
    missing = [name for name in needed if getattr(options, name) is None]
    if missing:
        raise NodeError(f"--desk takes --{missing[0]} as well")
    remote = RemoteDesk(
        address=options.desk,
        purpose=options.purpose,
        **{name: getattr(options, name) for name in needed},
    )
    return DeskClient(remote, options.ae_title, keys.identities())
