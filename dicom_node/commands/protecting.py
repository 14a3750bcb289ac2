"""What marks files with the keys and the ledger of a state folder, and its options."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.marking import Marking, Profile, WeakMarks
from dicom_node.routing import Unmarked
from miadmark_core.mode import Mode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from dicom_node.audit import Event
    from dicom_node.config import Cluster
    from dicom_node.files import Outcome, Task
    from dicom_node.instance import OpenInstance
    from dicom_node.keys.keyring import Keyring
    from dicom_node.protection import SeekAll
    from dicom_node.state import State

    Protect = Callable[[Sequence[Task]], Iterator[Outcome]]
    """Begins to mark files; one outcome each, in order, of one call after another."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add how objects are marked, for whom, and what becomes of the others."""
    command.add_argument(
        "--recipient",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="site file of another site that can open the record as well",
    )
    command.add_argument(
        "--profile",
        choices=[profile.value for profile in Profile],
        default=Profile.STANDARD.value,
        help="fast draws marks at once, which mislead less; strong looks three times "
        "as long; logo is a visible notice, off what matters (%(default)s)",
    )
    command.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        default=Mode.AUTO.value,
        help="lead classifiers to wrong answers, or to answers drawn by lot; auto does "
        "the second where there are two classes (%(default)s)",
    )
    command.add_argument(
        "--weak-marks",
        choices=[policy.value for policy in WeakMarks],
        default=WeakMarks.HOLD.value,
        help="what becomes of a mark that does not mislead whom it was tried on "
        "(%(default)s)",
    )
    command.add_argument("--weights", type=Path, help="surrogates of this site")
    command.add_argument(
        "--keep-codestream",
        action="store_true",
        help="keep what compressed originals came in, sealed in the state folder, so "
        "that they come back here as they were, byte for byte",
    )
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


@contextmanager
def protecting(
    options: argparse.Namespace,
    state: State,
    keyring: Keyring,
    sent: Callable[[OpenInstance], None] = lambda _: None,
    cluster: Cluster | None = None,
) -> Iterator[Protect]:
    """Yield what marks files, as options say; good until the end of the block.

    Args:
        options: See :func:`add_options`.
        state: Where records are kept.
        keyring: Of that state.
        sent: Told of every marked object once it is written.
        cluster: Where marks are looked for; None for here.
    """
    from dicom_node import protection
    from dicom_node.codec_process import CodecProcess
    from dicom_node.filters.foresight import foreseen
    from dicom_node.finders import cluster_search, may_search
    from dicom_node.keepers import codestream_keeper, keeper
    from dicom_node.keys.sealer import Sealer
    from dicom_node.keys.site import read_site
    from dicom_node.markers import BatchMarker, one_by_one, referrer
    from dicom_node.naming import Naming

    recipients = tuple(read_site(file).recipient for file in options.recipient)
    audit = state.audit(keyring)
    marking = Marking(
        profile=Profile(options.profile),
        mode=Mode(options.mode),
        weak_marks=WeakMarks(options.weak_marks),
    )
    names: dict[str, str] = {}

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

    with (
        state.ledger() as ledger,
        state.renamings(keyring) as renamings,
        state.found_marks(keyring) as found_marks,
        CodecProcess() as decode,
        cluster_search(cluster, options.weights, marking, state.folder) as elsewhere,
    ):
        sealer = Sealer(keyring, ledger.number, recipients)

        def remembered(source: str) -> str | None:
            return names.get(source) or renamings.find(source)

        seek_all: SeekAll = BatchMarker(
            options.weights,
            sealer,
            terminal.now,
            marking,
            remembered,
            decode,
            found_marks.find,
            partial(may_search, state.folder, keyring),
            elsewhere=elsewhere,
        ).seek
        if keyring.nodes.all():
            # Of a site with several nodes, every original gets the mark of a node.
            seek_all = one_by_one(seek_all)
        refer = referrer(sealer, terminal.now, marking, remembered)
        keep = keeper(keyring, ledger, renamings, found_marks, terminal.now)

        def protect(todo: Sequence[Task]) -> Iterator[Outcome]:
            outcomes = protection.protect(
                todo,
                seek_all=seek_all,
                refer=refer,
                keep=keep,
                keep_codestream=codestream_keeper(keyring, state.codestreams())
                if options.keep_codestream
                else None,
                others=protection.Others(
                    not_images=Unmarked(options.others),
                    other_pixels=Unmarked(options.other_pixels),
                    marks_quantities=options.mark_quantities,
                ),
                note=note,
                sent=sent,
            )

            def named() -> Iterator[Outcome]:
                # Now: what was done since it was begun has got its names.
                naming = Naming(sealer.derive, marking.style, renamings.find)
                names.clear()
                names.update(foreseen((task.source for task in todo), naming))
                yield from outcomes

            return named()

        yield protect
