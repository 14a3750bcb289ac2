"""``train`` and ``evaluate``: weights and figures, made again."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from miadmark_core.search.packs import Weights
    from miadmark_core.training.recipe import Recipe


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    train = commands.add_parser("train", help="make weights")
    kinds = train.add_subparsers(required=True, metavar="WHAT")
    for kind, meaning, run in (
        ("surrogates", "what the search looks through", _train_surrogates),
        ("victims", "what marks are scored against", _train_victims),
        ("generators", "what draws marks at once", _train_generators),
    ):
        verb = kinds.add_parser(kind, help=meaning)
        verb.add_argument("--data", type=Path, required=True, metavar="DIR")
        verb.add_argument("--out", type=Path, required=True, metavar="DIR")
        verb.add_argument("--set", action="append", metavar="NAME", dest="sets")
        if run is not _train_generators:
            verb.add_argument("--network", action="append", metavar="NAME")
        if run is _train_surrogates:
            _add_site(verb)
        verb.set_defaults(run=run)
        add_json(verb, "says", is_long=True)
    evaluate = commands.add_parser("evaluate", help="how well marks mislead")
    evaluate.add_argument("--data", type=Path, required=True, metavar="DIR")
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR")
    evaluate.add_argument(
        "--suite",
        choices=("quick", "plain", "full"),
        default="quick",
        help="some images and attackers; all images but one attacker; some images and "
        "all attackers (%(default)s)",
    )
    evaluate.add_argument("--set", action="append", metavar="NAME", dest="sets")
    evaluate.add_argument(
        "--engine",
        action="append",
        metavar="NAME",
        help="else the profile standard; standard:cells=56 is one with a change",
    )
    evaluate.add_argument(
        "--victim",
        action="append",
        metavar="NAME",
        help="else six of them; trained if need be",
    )
    evaluate.add_argument(
        "--attacker",
        action="append",
        metavar="NAME",
        help="else those of the suite; own-pairs-1000, say, or fine-tuned-500",
    )
    evaluate.add_argument("--weights", type=Path, help="else the shipped ones")
    evaluate.add_argument(
        "--publish",
        type=Path,
        metavar="CHECKOUT",
        help="make these the results that its README shows",
    )
    evaluate.set_defaults(run=_evaluate)
    add_json(
        evaluate,
        *("engine", "set", "classifier", "box", "clean", "marked", "interval"),
        *("control", "commonest", "results", "findings", "cautions"),
        is_long=True,
    )


def _add_site(verb: argparse.ArgumentParser) -> None:
    site = verb.add_argument_group(
        "a folder of a site",
        "With --modality, DIR is a folder of DICOM objects or pictures, without labels "
        "unless --labelled says so.",
    )
    site.add_argument(
        "--labelled", action="store_true", help="the folders in DIR are the classes"
    )
    site.add_argument(
        "--modality", action="append", metavar="CODE", help="that they are for: MR, say"
    )
    site.add_argument(
        "--body-part",
        action="append",
        metavar="NAME",
        help="Body Part Examined that they are for; else objects that name none",
    )
    site.add_argument("--licence", default="of this site", help="of the pictures")


def _train_surrogates(options: argparse.Namespace) -> int:
    from miadmark_core.training import surrogates

    if options.modality:
        return _train_on_site_images(options)
    if options.body_part or options.labelled:
        raise NodeError("a site's folder needs --modality", hint="--modality MR, say.")
    return _train(
        options,
        surrogates.train_surrogates,
        surrogates.SHIPPED_SETS,
        surrogates.SURROGATES,
    )


def _train_victims(options: argparse.Namespace) -> int:
    from miadmark_core.evaluation.victims import VICTIMS, train_victims
    from miadmark_core.training.cards import CARDS

    return _train(options, train_victims, tuple(CARDS), VICTIMS)


def _train_on_site_images(options: argparse.Namespace) -> int:
    from dicom_node.pictures import picture_in
    from miadmark_core.search.finder import best_device
    from miadmark_core.training.cards import SetCard
    from miadmark_core.training.recipe import chosen_recipes
    from miadmark_core.training.surrogates import (
        KNOWN,
        SURROGATES,
        train_site_surrogates,
    )

    card = SetCard(
        modalities=tuple(code.upper() for code in options.modality),
        body_parts=tuple(part.upper() for part in options.body_part or [""]),
        data="pictures of this site",
        licence=options.licence,
    )
    names = options.network or [recipe.name for recipe in SURROGATES]
    with _training(options) as said:
        train_site_surrogates(
            options.data,
            options.out,
            card=card,
            decode=picture_in,
            is_labelled=options.labelled,
            recipes=chosen_recipes(KNOWN, names),
            device=best_device(),
            report=said,
        )
    return 0


def _train_generators(options: argparse.Namespace) -> int:
    from miadmark_core.search.finder import best_device
    from miadmark_core.training.generators import train_generators
    from miadmark_core.training.surrogates import SHIPPED_SETS

    with _training(options) as said:
        train_generators(
            options.data,
            options.out,
            sets=options.sets or SHIPPED_SETS,
            device=best_device(),
            report=said,
        )
    return 0


def _train(
    options: argparse.Namespace,
    train: Callable[..., list[Weights]],
    sets: Sequence[str],
    recipes: Sequence[Recipe],
) -> int:
    from miadmark_core.search.finder import best_device

    with _training(options) as said:
        train(
            options.data,
            options.out,
            sets=options.sets or sets,
            names=options.network or [recipe.name for recipe in recipes],
            device=best_device(),
            report=said,
        )
    return 0


@contextmanager
def _training(options: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    """Yield what a training tells how far it is."""
    report = Report(options)
    with report.working("training") as bar:

        def said(line: str) -> None:
            report.tell(line, says=line)
            bar()

        yield said


def _evaluate(options: argparse.Namespace) -> int:
    from rich.console import Console

    from dicom_node.demo.engines import HURRIED, engine_maker
    from dicom_node.demo.trial import evaluate, print_table, rows
    from dicom_node.finders import SHIPPED_WEIGHTS
    from dicom_node.judging import SHIPPED_VICTIMS
    from miadmark_core.evaluation.attackers import ALL, is_known
    from miadmark_core.evaluation.stock import Stock
    from miadmark_core.evaluation.suite import SUITES, Run
    from miadmark_core.evaluation.victims import JURY
    from miadmark_core.search.finder import best_device
    from miadmark_core.training.cards import CARDS

    _require_known(options)
    suite = SUITES[options.suite]
    if options.attacker:
        chosen = tuple(dict.fromkeys(options.attacker))
        suite = replace(
            suite, name=f"{suite.name}, {', '.join(chosen)}", conditions=chosen
        )
    strange = [name for name in suite.conditions if not is_known(name)]
    if strange:
        raise NodeError(f"no attacker {strange[0]!r}", hint=f"Known: {', '.join(ALL)}.")
    options.out.mkdir(parents=True, exist_ok=True)
    started = terminal.now()
    keys = state_in(options.out / "site").keys()
    report = Report(options)
    said = partial(print, file=sys.stderr, flush=True)
    with report.working("preparing") as bar:

        def advance(words: str) -> None:
            bar(words)
            if not sys.stderr.isatty():
                said(words)

        found = evaluate(
            Run(
                stock=Stock(
                    data=options.data,
                    out=options.out,
                    weights=options.weights or SHIPPED_WEIGHTS,
                    shipped_victims=SHIPPED_VICTIMS,
                    device=best_device(),
                    report=said,
                    victims=tuple(dict.fromkeys(options.victim or JURY)),
                ),
                make_engine=engine_maker(keys, terminal.now, best_device(), said),
                begin=bar.expect,
                advance=advance,
                hurried=HURRIED,
            ),
            suite,
            sets=list(dict.fromkeys(options.sets or CARDS)),
            engines=list(dict.fromkeys(options.engine or ["standard"])),
            checkout=options.publish,
        )
    if report.is_json:
        for row in rows(found):
            report.tell("", **row)
    else:
        print_table(found, Console())
    for sentence in found["findings"]:
        terminal.complain(sentence, "")
    report.say(*(f"{sentence}." for sentence in found["cautions"]))
    took = terminal.now() - started
    report.tell(
        f"wrote {options.out / 'results.json'} and report.html in {took}",
        results=str(options.out / "results.json"),
        findings=found["findings"],
        cautions=found["cautions"],
    )
    return 1 if found["findings"] else 0


def _require_known(options: argparse.Namespace) -> None:
    """Return if there are engines, sets and victims of the names that are asked for."""
    from dicom_node.demo.engines import profile_of
    from miadmark_core.evaluation.victims import KNOWN
    from miadmark_core.training.cards import CARDS

    for engine in options.engine or []:
        profile_of(engine)
    foreign = set(options.sets or []) - set(CARDS)
    if foreign:
        raise NodeError(
            f"no set {min(foreign)!r} can be evaluated",
            hint=f"Known, with their modalities: {', '.join(CARDS)}.",
        )
    strangers = set(options.victim or []) - {recipe.name for recipe in KNOWN}
    if strangers:
        raise NodeError(
            f"no victim {min(strangers)!r}",
            hint=f"Known: {', '.join(recipe.name for recipe in KNOWN)}.",
        )
