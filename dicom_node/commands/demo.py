"""``selftest`` and ``demo``: a node on loopback, from the first object to the last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands.report import Report, add_json
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    selftest = commands.add_parser(
        "selftest", help="receive, mark, send, strip, verify; on loopback"
    )
    selftest.set_defaults(run=_selftest)
    add_json(selftest, "identical", is_long=True)
    demo = commands.add_parser("demo", help="the whole story with pictures")
    demo.add_argument("--out", type=Path, default=Path("demo-output"), metavar="DIR")
    demo.set_defaults(run=_demo)
    add_json(
        demo,
        *("object", "modality", "answers", "psnr_db", "ssim", "identical"),
        *("page", "seconds"),
        is_long=True,
    )


def _selftest(options: argparse.Namespace) -> int:
    from importlib.util import find_spec

    from dicom_node.demo.selftest import selftest
    from dicom_node.extras import extra

    with extra("mark", "the self-test marks, and"):
        if find_spec("torch") is None:
            raise ModuleNotFoundError("torch is not installed", name="torch")
    report = Report(options)
    with report.working("starting a node", 3) as step:
        selftest(step)
    report.tell("received, marked, sent, stripped, verified: identical", identical=True)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from dicom_node.demo.story import demo, print_stories

    report = Report(options)
    with report.working("starting a node", 4) as step:
        told = demo(options.out, step)
    if report.is_json:
        for story in told.stories:
            report.tell("", **story.as_json())
    else:
        print_stories(told.stories)
    failed = [story.name for story in told.stories if not story.is_identical]
    if failed:
        raise NodeError(f"not restored identically: {', '.join(failed)}")
    count, page = len(told.stories), str(told.page.resolve())
    report.say(
        f"sent {count} objects to a research archive, marked",
        f"the authorised archive's {count} copies are identical bit for bit",
    )
    report.tell(f"pictures: {page}", page=page, seconds=round(told.seconds))
    report.say(f"{told.seconds:.0f} seconds")
    return 0
