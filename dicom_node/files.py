"""Files that something is done to: where each result goes, and what became of each.

Paths are kept below the output folder, an input is never overwritten, and a result is
whole or not there. What became of a file is said in an :class:`Outcome`, never printed
here. What is done to the files is not known here, nor what is in them.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from dicom_node.leaks import Finding
    from dicom_node.mapped import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A file, and where its result goes."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file."""

    source: Path
    target: Path | None
    """Where the result lies; None where there is none."""
    status: str
    """``marked``, ``referred`` (names marked objects now), ``restored``, ``passed``
    (unchanged), ``dropped`` (no result, as was asked for) or ``failed``."""
    reason: str = ""
    hint: str = ""
    psnr_db: float | None = None
    ssim: float | None = None
    misled: dict[str, bool] | None = None
    leaks: tuple[Finding, ...] = ()
    """What else the result shows of a picture, or may show."""
    seconds: float = 0.0

    @classmethod
    def failed(cls, task: Task, error: Exception, seconds: float) -> Self:
        """Return that nothing came of a file, and why."""
        return cls(
            source=task.source,
            target=None,
            status="failed",
            reason=str(error),
            hint=getattr(error, "hint", ""),
            seconds=round(seconds, 3),
        )

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object, with the names the command line promises."""
        values = asdict(self)
        values["in"] = str(values.pop("source"))
        target = values.pop("target")
        values["out"] = None if target is None else str(target)
        values["leaks"] = [finding.as_json() for finding in self.leaks]
        return values


def tasks(paths: Iterable[Path], out: Path) -> list[Task]:
    """Return what is to be done for ``paths``: files, and all files of folders.

    Raises:
        NodeError: A path does not exist, two results would have one name, or a result
            would overwrite an input.
    """
    found: list[Task] = []
    for path in paths:
        if path.is_dir():
            files = sorted(f for f in path.rglob("*") if f.is_file())
            files = [f for f in files if not f.resolve().is_relative_to(out.resolve())]
            found += [Task(source=f, target=out / f.relative_to(path)) for f in files]
        elif path.is_file():
            found.append(Task(source=path, target=out / path.name))
        else:
            raise NodeError(f"{path} does not exist")
    sources = {task.source.resolve() for task in found}
    targets: set[Path] = set()
    for task in found:
        target = task.target.resolve()
        if target in sources:
            raise NodeError(
                f"{task.target} is an input and would be overwritten",
                hint="Choose another --out.",
            )
        if target in targets:
            raise NodeError(
                f"{task.target} would be written twice",
                hint="Two inputs have one name; give their common folder instead.",
            )
        targets.add(target)
    return found


def inputs(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files among ``paths``, and all files of folders.

    Raises:
        NodeError: A path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            yield path
        else:
            raise NodeError(f"{path} does not exist")


def write(target: Path, content: Iterable[Buffer]) -> None:
    """Write a file so that it is whole or not there, and its folder with it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.writelines(content)
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
