"""``protect`` and ``restore``: files in, files out."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.commands.outcomes import KEYS, tell
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError
from dicom_node.marking import Marking, Profile, WeakMarks
from dicom_node.routing import Unmarked
from miadmark_core.mode import Mode

if TYPE_CHECKING:
    import argparse

    from dicom_node.audit import Event
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
        "--keep-codestream",
        action="store_true",
        help="keep what compressed originals came in, sealed in the state folder, so "
        "that they come back here as they were, byte for byte",
    )
    _add_others(protect)
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


def _add_others(command: argparse.ArgumentParser) -> None:
    """Add what becomes of what is not marked."""
    choices = [what.value for what in Unmarked]
    command.add_argument(
        "--others",
        choices=choices,
        default=Unmarked.PASS.value,
        help="what becomes of objects without a picture: reports, documents, "
        "segmentations; hold fails them (%(default)s)",
    )
    command.add_argument(
        "--hold-others",
        action="store_const",
        dest="others",
        const=Unmarked.HOLD.value,
        help="the same as --others hold",
    )
    command.add_argument(
        "--other-pixels",
        choices=choices,
        default=Unmarked.HOLD.value,
        help="what becomes of pictures that can carry no mark: 1-bit, 32-bit, float, too "
        "few grey levels (%(default)s)",
    )
    command.add_argument(
        "--mark-quantities",
        action="store_true",
        help="mark segmentations, parametric maps, dose and PET in SUV as pictures",
    )


def _add_paths(command: argparse.ArgumentParser, *keys: str) -> None:
    command.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_state(command)
    add_json(command, *KEYS, *keys, is_long=True)


def _protect(options: argparse.Namespace) -> int:
    from dicom_node import files
    from dicom_node.codec_process import CodecProcess
    from dicom_node.filters.foresight import foreseen
    from dicom_node.keys.sealer import Sealer
    from dicom_node.keys.site import read_site
    from dicom_node.listing import Listed
    from dicom_node.markers import (
        batch_marker,
        codestream_keeper,
        keeper,
        may_search,
        one_by_one,
        referrer,
    )
    from dicom_node.naming import Naming

    todo = files.tasks(options.paths, options.out)
    state = state_in(options.state)
    listed: list[Listed] = []
    recipients = tuple(read_site(file).recipient for file in options.recipient)
    keyring = state.keys()
    audit = state.audit(keyring)

    def note(event: Event, instance: OpenInstance, reason: str) -> None:
        named = instance.attributes(0x00080016, 0x00080018)
        audit.add(
            event,
            how="protected",
            sop_class=str(named.get("SOPClassUID") or ""),
            instance=str(named.get("SOPInstanceUID") or ""),
            reason=reason[:500],
            by=terminal.user(),
        )

    marking = Marking(
        profile=Profile(options.profile),
        mode=Mode(options.mode),
        weak_marks=WeakMarks(options.weak_marks),
    )
    with (
        state.ledger() as ledger,
        state.renamings(keyring) as renamings,
        state.found_marks(keyring) as found_marks,
        CodecProcess() as decode,
    ):
        sealer = Sealer(keyring, ledger.number, recipients)
        naming = Naming(sealer.derive, marking.style, renamings.find)
        names = foreseen((task.source for task in todo), naming)

        def remembered(source: str) -> str | None:
            return names.get(source) or renamings.find(source)

        mark_all = batch_marker(
            options.weights,
            sealer,
            terminal.now,
            marking,
            remembered,
            decode,
            found_marks.find,
            partial(may_search, state.folder, keyring),
        )
        # Of a site with several nodes, every original gets the mark of a node.
        has_nodes = bool(keyring.nodes.all())
        outcomes = files.protect(
            todo,
            mark_all=one_by_one(mark_all) if has_nodes else mark_all,
            refer=referrer(sealer, terminal.now, marking, remembered),
            keep=keeper(keyring, ledger, renamings, found_marks, terminal.now),
            keep_codestream=codestream_keeper(keyring, state.codestreams())
            if options.keep_codestream
            else None,
            others=files.Others(
                not_images=Unmarked(options.others),
                other_pixels=Unmarked(options.other_pixels),
                marks_quantities=options.mark_quantities,
            ),
            note=note,
            sent=lambda instance: listed.append(Listed.of(instance)),
        )
        code = tell(outcomes, len(todo), "marking", Report(options))
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
    from dicom_node import files
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

        outcomes = files.restore(
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
