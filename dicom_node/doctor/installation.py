"""Python and the packages: whether what this version asks for is there.

The node may do without extras, each of which it needs for something; one that is there
in part, or in a version that was never tried, is wrong.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.routing import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dicom_node.config import Config
    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

PACKAGE: Final = "miadmark"
_EXTRAS: Final = (
    "mark",
    "codecs",
    "desk",
    "hsm",
    "postgres",
    "web",
    "bucket",
    "cluster",
)
"""Those that a node may need; the others make weights and run tests."""


def python(_: Case) -> Iterator[Finding]:
    """Yield whether this Python will do."""
    try:
        wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    except metadata.PackageNotFoundError:
        wanted = ""
    yield judged_python(sys.version_info[:3], wanted or "")


def packages(case: Case) -> Iterator[Finding]:
    """Yield whether what is installed is what this version asks for."""
    try:
        required = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield note(
            "it runs from a folder: which packages it wants is not known",
            "pip install it, or: make test",
        )
        return
    needed = needed_extras(case.config) if case.config else {}
    if case.root_kind == "pkcs11":
        needed["hsm"] = "a token keeps the root key"
    yield from judged_packages(required, _installed, needed)


def judged_python(version: tuple[int, ...], wanted: str) -> Finding:
    """Return whether a version of Python is one that is wanted.

    Args:
        version: Major, minor and so on.
        wanted: As packages say it: ``>=3.11``; empty if nobody says.
    """
    named = ".".join(map(str, version))
    if named not in SpecifierSet(wanted):
        return wrong(
            f"Python {named}, and {wanted} is wanted",
            "Make its virtual environment with another Python.",
        )
    return ok(f"Python {named}")


def needed_extras(config: Config) -> dict[str, str]:
    """Return which extras a configuration cannot do without, and what for."""
    needed = {}
    for route in config.routes:
        if route.action is Action.MARK:
            needed["mark"] = f"route {route.name!r} marks"
    if config.cluster is not None:
        needed["cluster"] = "[cluster] looks for marks"
    if config.release is not None:
        needed["desk"] = "[release] is a desk"
    if config.queue.database:
        needed["postgres"] = "[queue] is a database on a server"
    if config.web is not None:
        needed["web"] = "[web] is a page"
    return needed


def judged_packages(
    required: Iterable[str],
    installed: Callable[[str], str | None],
    needed: Mapping[str, str],
) -> Iterator[Finding]:
    """Yield what is missing or of a version that does not fit.

    Args:
        required: Requirements, as a package's metadata has them.
        installed: Returns the version of a package; None if it is not there.
        needed: Extras that a node cannot do without, and what for.
    """
    wants = [Requirement(text) for text in required]
    core = [one for one in wants if one.marker is None or one.marker.evaluate()]
    yield from _unfit(core, installed, "")
    is_fine, there, absent = not [*_unfit(core, installed, "")], [], []
    for extra in _EXTRAS:
        of_it = [one for one in wants if one not in core and _is_of(one, extra)]
        missing = [one for one in of_it if installed(one.name) is None]
        if of_it and missing == of_it and extra not in needed:
            absent.append(extra)
            continue
        if missing and extra in needed:
            names = ", ".join(one.name for one in missing)
            yield wrong(
                f"{needed[extra]}, and {names} {_is(missing)} not installed",
                f"pip install '{PACKAGE}[{extra}]'",
            )
            continue
        # Something of it may be there for its own sake: packages are shared.
        present = [one for one in of_it if one not in missing]
        yield from _unfit(present, installed, extra)
        if not missing and of_it:
            there.append(extra)
        elif missing:
            absent.append(extra)
    if is_fine:
        says = f"{len(core)} packages of the versions that it wants"
        says += f"; extras: {', '.join(there) or 'none'}"
        yield ok(says + (f"; not there: {', '.join(absent)}" if absent else ""))


def _unfit(
    wants: Iterable[Requirement], installed: Callable[[str], str | None], extra: str
) -> Iterator[Finding]:
    for one in wants:
        found = installed(one.name)
        if found is None:
            yield wrong(f"{one.name} is not installed", f"pip install '{one}'")
        elif not one.specifier.contains(found, prereleases=True):
            of_it = f" (for {extra})" if extra else ""
            yield wrong(
                f"{one.name} is {found}, and {one.specifier} is wanted{of_it}",
                f"pip install '{one.name}{one.specifier}'",
            )


def _is_of(one: Requirement, extra: str) -> bool:
    """Say whether a requirement belongs to an extra."""
    if one.marker is None or not re.search(r"\bextra\b", str(one.marker)):
        return False
    return one.marker.evaluate({"extra": extra})


def _is(missing: list[Requirement]) -> str:
    return "is" if len(missing) == 1 else "are"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
