"""``train`` and ``evaluate``: weights and figures, made again."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from dicom_node.commands import terminal
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from miadmark_core.search.packs import Weights
    from miadmark_core.training.recipe import Recipe


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
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
        choices=("quick", "plain", "full"),
        default="quick",
        help="some images and attackers; all images but one attacker; some images and "
        "all attackers (%(default)s)",
    )
    evaluate.add_argument("--set", action="append", metavar="NAME", dest="sets")
    evaluate.add_argument(
        "--engine", action="append", metavar="NAME", help="else the profile standard"
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


def _train_surrogates(options: argparse.Namespace) -> int:
    from miadmark_core.training import surrogates

    return _train(
        options,
        surrogates.train_surrogates,
        surrogates.SHIPPED_SETS,
        surrogates.SURROGATES,
    )


def _train_victims(options: argparse.Namespace) -> int:
    from miadmark_core.evaluation.victims import VICTIMS, train_victims
    from miadmark_core.training.recipe import CARDS

    return _train(options, train_victims, tuple(CARDS), VICTIMS)


def _train(
    options: argparse.Namespace,
    train: Callable[..., list[Weights]],
    sets: Sequence[str],
    recipes: Sequence[Recipe],
) -> int:
    from miadmark_core.search.finder import best_device

    train(
        options.data,
        options.out,
        sets=options.sets or sets,
        names=options.network or [recipe.name for recipe in recipes],
        device=best_device(),
        report=partial(print, flush=True),
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from dicom_node.demo.trial import (
        ENGINES,
        HURRIED,
        engine_maker,
        evaluate,
        print_table,
    )
    from dicom_node.keys.file import KeyFolder
    from dicom_node.node import SHIPPED_WEIGHTS
    from miadmark_core.evaluation.attackers import ALL, is_known
    from miadmark_core.evaluation.suite import SUITES, Run
    from miadmark_core.evaluation.victims import JURY, VICTIMS
    from miadmark_core.search.finder import best_device
    from miadmark_core.training.recipe import CARDS

    unknown = set(options.engine or []) - set(ENGINES)
    if unknown:
        raise NodeError(
            f"no engine {min(unknown)!r}", hint=f"Known: {', '.join(ENGINES)}."
        )
    foreign = set(options.sets or []) - set(CARDS)
    if foreign:
        raise NodeError(
            f"no set {min(foreign)!r} can be evaluated",
            hint=f"Known, with their modalities: {', '.join(CARDS)}.",
        )
    strangers = set(options.victim or []) - {recipe.name for recipe in VICTIMS}
    if strangers:
        raise NodeError(
            f"no victim {min(strangers)!r}",
            hint=f"Known: {', '.join(recipe.name for recipe in VICTIMS)}.",
        )
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
    folder = options.out / "keys"
    keys = KeyFolder(folder) if KeyFolder.exists(folder) else KeyFolder.make(folder)
    started = terminal.now()
    report = partial(print, file=sys.stderr, flush=True)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("preparing", total=None)

        def advance(words: str) -> None:
            bar.update(task, description=words, advance=1)
            if not console.is_terminal:
                print(words, file=sys.stderr, flush=True)

        found = evaluate(
            Run(
                data=options.data,
                out=options.out,
                weights=options.weights or SHIPPED_WEIGHTS,
                device=best_device(),
                make_engine=engine_maker(keys, terminal.now, best_device(), report),
                report=report,
                begin=lambda pieces: bar.update(task, total=pieces),
                advance=advance,
                hurried=HURRIED,
                victims=tuple(dict.fromkeys(options.victim or JURY)),
            ),
            suite,
            sets=list(dict.fromkeys(options.sets or CARDS)),
            engines=list(dict.fromkeys(options.engine or ["standard"])),
            checkout=options.publish,
        )
    print_table(found, Console())
    for sentence in found["findings"]:
        terminal.complain(sentence, "")
    for sentence in found["cautions"]:
        print(f"{sentence}.")
    took = terminal.now() - started
    print(f"wrote {options.out / 'results.json'} and report.html in {took}")
    return 1 if found["findings"] else 0
