"""What makes an evaluation's figures worthless, or less than they seem, in sentences.

Worthless: pictures left unmarked, marks that do not come off, marks that know the test's
labels, judges that know nothing. Less: where labels could have been seen unnoticed, and
victims that an ordinary model would beat. None of them changes a figure; each has to be
read before the figures are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from miadmark_core.evaluation.judges import BLACK
from miadmark_core.evaluation.leak import LEAST_ASKED, Sides, has_seen_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from miadmark_core.evaluation.protocol import EngineOnSet

SANE: Final[Mapping[str, tuple[str, float]]] = {
    "brain_mri": ("top1", 0.85),
    "chest_xray": ("top1", 0.85),
    "fundus": ("balanced", 0.7),
    "skin_dermoscopy": ("balanced", 0.55),
}
"""What the better half of a set's victims reaches on clean pictures, at least."""

MARGIN: Final = 0.1
"""By how much a judge's balanced accuracy has to exceed chance to count as one."""

_SEEN: Final = (
    "the marks know what the surrogates got wrong, so the engine has seen the labels of "
    "the test"
)


def findings(marks: Iterable[EngineOnSet]) -> list[str]:
    """Return a sentence on each thing that makes an engine's figures worthless."""
    entries = list(marks)
    found = []
    for entry in entries:
        where = f"{entry.engine} on {entry.data_set}"
        if entry.unchanged:
            found.append(
                f"{where}: {entry.unchanged} of {entry.images} pictures left unmarked"
            )
        if entry.restored_identical < 1:
            share = 100 * (1 - entry.restored_identical)
            found.append(f"{where}: {share:.1f} % did not come back bit for bit")
        if entry.sides and all(map(has_seen_labels, entry.sides.values())):
            found.append(f"{where}: {_SEEN}")
    for engine, sides in _over_sets(entries).items():
        is_said = any(
            w.startswith(f"{engine} on ") and w.endswith(_SEEN) for w in found
        )
        if sides and all(map(has_seen_labels, sides.values())) and not is_said:
            found.append(f"{engine} on all sets together: {_SEEN}")
    return found


def undecided(
    marks: Sequence[EngineOnSet], sets: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return a sentence on each engine that could have seen labels unnoticed.

    Args:
        marks: How marks look.
        sets: As in the results.
    """
    found = []
    for engine, sides in _over_sets(marks).items():
        if sides and min(map(sum, sides.values())) < LEAST_ASKED:
            found.append(
                f"{engine}: whether it has seen labels shows where surrogates hold the "
                f"truth impossible, and marks took sides on "
                f"{min(map(sum, sides.values()))} such pictures only"
            )
        elif not any(
            entry.label_in_mark >= sets[entry.data_set]["chance"] + MARGIN
            for entry in marks
            if entry.engine == engine
        ):
            found.append(
                f"{engine}: whether it has seen labels cannot be told, since its marks "
                "could not be told from each other"
            )
    return found


def ignorant(
    judges: Iterable[Mapping[str, Any]], sets: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return a sentence on each judge that knows no more than chance.

    Whatever it says of marked pictures would flatter the mark.

    Args:
        judges: As in the results.
        sets: Likewise.
    """
    return [
        f"{judge['judge']} on {judge['data_set']}: balanced accuracy "
        f"{100 * judge['balanced']:.1f} % on clean pictures, hardly better than chance "
        f"({100 * sets[judge['data_set']]['chance']:.1f} %)"
        for judge in judges
        if judge["balanced"] < sets[judge["data_set"]]["chance"] + MARGIN
    ]


def weak(
    judges: Sequence[Mapping[str, Any]], sets: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return a sentence on each set whose victims are worse than :data:`SANE` asks.

    Args:
        judges: As in the results.
        sets: Likewise.
    """
    found = []
    for name, (figure, least) in SANE.items():
        reached = sorted(
            j[figure] for j in judges if (j["data_set"], j["box"]) == (name, BLACK)
        )
        better_half = reached[len(reached) // 2 :]
        if better_half and better_half[0] < least:
            found.append(
                f"the better half of the victims on {name} starts at "
                f"{100 * better_half[0]:.1f} % ({figure}, {sets[name]['split']} clean "
                f"images), below the {100 * least:.0f} % of an ordinary model"
            )
    return found


def _over_sets(marks: Sequence[EngineOnSet]) -> dict[str, dict[str, Sides]]:
    """Return, by engine and surrogate, whom marks side with on all sets together."""
    found: dict[str, dict[str, Sides]] = {}
    for entry in marks:
        of_engine = found.setdefault(entry.engine, {})
        for name, told in entry.sides.items():
            before = of_engine.get(name, Sides(0, 0))
            of_engine[name] = Sides(
                before.truth + told.truth, before.surrogate + told.surrogate
            )
    return found
