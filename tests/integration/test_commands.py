"""Each command, by a table: what it tells programs, shows people, and says of itself.

A new command is in one of these tables, or a test here fails and names it.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import threading
import warnings
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node import files
from dicom_node.cli import made_parser, main
from dicom_node.commands import terminal
from dicom_node.commands.examples import EXAMPLES
from dicom_node.commands.report import OTHERS
from dicom_node.commands.tree import Command, actions, parsers
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.keepers import keeper
from dicom_node.keys.sealer import Sealer
from dicom_node.marking import Marking, Profile
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.state import State
from tests.conftest import NOW, certificate_of, miadmark, opened
from tests.hand_marks import by_hand

PARSER = made_parser()
README = Path(__file__).parents[2] / "README.md"

WITHOUT_JSON = {
    "serve": "runs until it is told to stop; its log is JSON if one wants",
    "metrics": "runs until it is told to stop",
    "web": "runs until it is told to stop",
    "completion": "prints a script for a shell",
    "help": "prints what --help prints",
}
"""Commands that tell programs nothing, and why."""

RUNS = {
    "protect": "{mr} --out {new} --profile logo --state {state}",
    "restore": "{marked} --out {new} --state {state}",
    "inspect": "{marked}",
    "backfill": "{reports} --out {new} --state {state}",
    "keys init": "--state {new}",
    "keys export-recipient": "--state {state}",
    "keys new-identity": "--out {new}.seed --site {new}.site --state {state}",
    "keys list": "--state {state}",
    "keys rotate": "--state {state}",
    "keys end-epochs": "--state {state}",
    "keys rules": "--suite 2 --state {state}",
    "keys trust": "{site} --state {state}",
    "keys add-recipient": "{site} --state {state}",
    "keys recover": "{marked} --out {new} --site {kit}/site.site "
    "--shares {kit}/share-1.txt {kit}/share-2.txt",
    "grant add": "--ae-title A --certificate {certificate} --state {state}",
    "grant list": "--state {state}",
    "grant revoke": "1 --state {state}",
    "grant explain": "--ae-title A --certificate {certificate} --state {state}",
    "grant rule": "--approvers 1 --state {state}",
    "recovery split": "--out {new} --state {fresh}",
    "recovery rehearse": "--shares {kit}/share-1.txt {kit}/share-2.txt --state {state}",
    "ledger rebuild": "{marked} --state {state}",
    "ledger copy": "{new} --state {state}",
    "ledger shred": "{marked}/mr.dcm --state {state}",
    "audit": "--state {state}",
    "audit verify": "--state {state}",
    "audit show": "--state {state}",
    "init": "{new} --role egress --marked-to R@127.0.0.1:9 --yes --anyway",
    "doctor": "--state {state}",
    "config check": "{config}",
    "config names": "routes {config}",
    "status": "--config {config}",
    "release": "--config {config}",
    "discard": "--config {config} 1",
    "route explain": "{mr} --config {config}",
    "route hold": "'to research' --by A --why b --config {config}",
    "web user add": "anna --role viewer --password-file {password} --config {config}",
    "web user list": "--config {config}",
    "break-glass": "1 --by A --why b --config {config}",
    "priority": "1 500 --config {config}",
    "bench": "seal",
    "capacity plan": "--nodes 1 --cores 1 --profile strong",
    "state backup": "{new} --state {state}",
    "nodes ask": "--name gw2 --out {new} --state {new}.state",
    "nodes issue": "--out {new} --state {state}",
    "nodes list": "--state {state}",
    "drain start": "--by A --why b --config {config}",
    "drain status": "--config {config}",
    "man": "{new}",
}
"""How each is run here: on a terminal, with ``--json``."""

ELSEWHERE = {
    "selftest": "takes DCMTK: test_the_self_test_is_passed",
    "demo": "make demo",
    "grant approve": "takes two people: tests/unit/node/test_grants.py",
    "config reload": "needs a node that runs: tests/integration/test_reload.py",
    "route release": "what route hold tells, the other way round",
    "web user remove": "what web user add tells, of nobody",
    "ledger merge": "takes two nodes",
    "nodes admit": "takes two nodes: tests of nodes run it",
    "nodes dismiss": "takes two nodes",
    "nodes join": "takes two nodes",
    "nodes take": "takes two nodes",
    "nodes lead": "takes two nodes",
    "nodes search": "loads what marks: tests of nodes run it",
    "drain pack": "takes two nodes: tests of draining run it",
    "drain take": "takes two nodes",
    "drain finish": "takes two nodes",
    "drain cancel": "takes a node that is drained",
    "capacity measure": "minutes: tests/integration/test_capacity_measure.py",
    "state restore": "what state backup tells",
    "state move": "takes a PostgreSQL server",
    "train surrogates": "minutes",
    "train victims": "minutes",
    "train generators": "minutes",
    "evaluate": "minutes: tests/integration/test_evaluate.py",
}
"""What is not run here, and why."""

CONFIG = """
[node]
ae_title = "MIADMARK"
port = 0
state = "state"

[break_glass]
allowed = true

[[destination]]
name = "research"
ae_title = "R"
host = "127.0.0.1"
port = 9

[[route]]
name = "to research"
destination = "research"
action = "mark"

[[route]]
name = "and, as it came"
destination = "research"
action = "pass"
"""


def known() -> list[Command]:
    """Every command that people are told of, groups as well."""
    return [one for one in parsers(PARSER) if one.summary]


def run_ones() -> dict[str, Command]:
    return {one.name: one for one in known() if one.is_run}


@pytest.fixture(scope="module")
def world(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with keys, a recovery key, a grant, a marked object, and a held job."""
    world = tmp_path_factory.mktemp("world")
    state, config = world / "state", world / "node.toml"
    config.write_text(CONFIG)
    password = world / "password"
    password.write_text("correct horse battery\n")
    for folder in ("images", "reports"):
        (world / folder).mkdir()
    shutil.copy(images / "report-sr.dcm", world / "reports")
    shutil.copy(images / "brain-mr-glioma.dcm", world / "images" / "mr.dcm")
    certificate = certificate_of(world, "a")
    for line in (
        f"keys init --state {state}",
        f"recovery split --shares 2 --threshold 2 --out {world}/kit --state {state}",
        f"keys init --state {world}/fresh",
        f"keys export-recipient --out {world}/b.site --state {world}/fresh",
        f"grant add --ae-title A --certificate {certificate} --state {state}",
        f"web user add otto --role viewer --password-file {password} --config {config}",
    ):
        assert main(shlex.split(line)) == 0
    mark_by_hand(State(state), world / "images" / "mr.dcm", world / "marked")
    with closing(State(state).queue()) as queue:
        queue.add(
            Arrival("1.2", b"d", "1.dcm", "9"), [Owed("to research", "research")], NOW
        )
    return world


def mark_by_hand(state: State, original: Path, out: Path) -> None:
    """Mark an object as ``protect --profile logo`` does, without a search.

    What has gone out with a mark goes out with the same, so no command here searches.
    """
    keyring, now = state.keys(), terminal.now()
    with (
        state.ledger() as ledger,
        state.renamings(keyring) as renamings,
        state.found_marks(keyring) as found_marks,
    ):
        (marked,) = mark(
            [opened(original)],
            find=by_hand,
            keys=Sealer(keyring, ledger.number),
            now=now,
            holds_weak=True,
            style=Marking(profile=Profile.LOGO).style,
        )
        assert isinstance(marked, MarkedInstance)
        keep = keeper(keyring, ledger, renamings, found_marks, terminal.now)
        keep(marked)
        files.write(out / original.name, marked.file.chunks())


@pytest.fixture
def places(world: Path, tmp_path: Path) -> dict[str, Path]:
    """The same site anew, so that each command may do as it likes."""
    again = tmp_path / "world"
    shutil.copytree(world, again)
    return {
        "config": again / "node.toml",
        "state": again / "state",
        "fresh": again / "fresh",
        "kit": again / "kit",
        "site": again / "b.site",
        "password": again / "password",
        "certificate": again / "a-cert.pem",
        "reports": again / "reports",
        "mr": again / "images" / "mr.dcm",
        "marked": again / "marked",
        "new": tmp_path / "new",
    }


class Terminal:
    """A terminal, and what appears on it."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        self._shown: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # nobody writes to it any more
                return
            self._shown.append(piece)

    def close(self) -> str:
        """Return what appeared."""
        self.stream.close()
        self._reader.join()
        os.close(self._ours)
        return b"".join(self._shown).decode("utf-8", "replace")


@pytest.mark.parametrize("name", RUNS)
def test_a_command_tells_programs_and_shows_people_how_far_it_is(
    name: str, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = shlex.split(RUNS[name].format(**places))
    terminal, output = Terminal(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    monkeypatch.setattr(sys, "stdout", output)
    code = main([*name.split(), *arguments, "--json"])
    monkeypatch.undo()
    shown = terminal.close()

    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    parser = run_ones()[name].parser
    keys = set(parser.get_default("json_keys"))
    assert lines, shown
    assert all(isinstance(line, dict) for line in lines)
    if OTHERS not in keys:
        assert {key for line in lines for key in line} <= keys
    if parser.get_default("is_long"):
        assert re.search(r"\d+/(\d+|\?)", shown), shown
    else:
        assert "\x1b[?25l" not in shown  # no bar, where there is nothing to wait for
    # The answer may be no: nothing is released that is not held, no route takes it.
    assert code in {0, 1}


def test_every_command_is_in_a_table() -> None:
    commands = run_ones()
    with_json = {
        n for n, one in commands.items() if one.parser.get_default("json_keys")
    }
    assert set(commands) - with_json == set(WITHOUT_JSON)
    assert with_json == set(RUNS) | set(ELSEWHERE)
    assert not set(RUNS) & set(ELSEWHERE)


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
def test_the_self_test_is_passed() -> None:
    done = miadmark("selftest", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"identical": True})


def test_bars_do_not_carry_off_what_is_told(places: dict[str, Path]) -> None:
    """Of a whole process: standard output to a file, standard error to a terminal."""
    terminal = Terminal()
    done = subprocess.run(
        [sys.executable, "-m", "dicom_node", "inspect", places["marked"]],
        stdout=subprocess.PIPE,
        stderr=terminal.stream,
        env=os.environ | {"TERM": "xterm"},
        check=True,
        text=True,
    )
    shown = terminal.close()
    assert "marked: True" in done.stdout
    assert "marked: True" not in shown
    assert "1/1" in shown
    assert "1/1" not in done.stdout


def test_who_has_heard_enough_keeps_no_work_from_being_done(
    places: dict[str, Path],
) -> None:
    """As of ``miadmark restore marked/ --out original/ --json | head -0``."""
    arguments = ("restore", places["marked"], "--out", places["new"], "--json")
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "dicom_node", *arguments, "--state", places["state"]],
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
        text=True,
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")
    assert (places["new"] / "mr.dcm").exists()


def test_libraries_quote_nothing_of_an_object(
    places: dict[str, Path], tmp_path: Path
) -> None:
    """A value that is none, which pydicom warns of with its text."""
    one = dcmread(places["marked"] / "mr.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one.file_meta.SourceApplicationEntityTitle = "canary\x13"
        one.save_as(tmp_path / "odd.dcm")
    done = miadmark(
        *("restore", tmp_path / "odd.dcm", "--out", places["new"]),
        *("--state", places["state"]),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 restored\n", "")


def test_without_a_terminal_there_is_no_bar(places: dict[str, Path]) -> None:
    done = miadmark("inspect", places["marked"])
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_has_examples_that_are_commands() -> None:
    commands = run_ones()
    assert set(EXAMPLES) - {""} == set(commands)
    for name, examples in EXAMPLES.items():
        assert examples
        for example in examples:
            first, *words = shlex.split(example.line, comments=True)
            assert first == "miadmark"
            assert words[: len(name.split())] == name.split()
            PARSER.parse_args(words[: words.index(">")] if ">" in words else words)


def test_the_examples_of_the_readme_are_commands() -> None:
    """Of each block for a shell, the lines that call ours."""
    text = README.read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [
        line
        for block in blocks
        for line in re.sub(r"\\\n *", "", block).splitlines()
        if re.match(r"(\S*/)?miadmark |sudo -u miadmark miadmark ", line)
    ]
    assert len(lines) > 40
    for line in lines:
        words = shlex.split(line.removeprefix("sudo -u miadmark "), comments=True)[1:]
        # "epoch | identity" names choices, "a > b" a file.
        ends = [words.index(mark) for mark in ("|", ">") if mark in words]
        try:
            PARSER.parse_args(words[: min(ends, default=len(words))])
        except SystemExit:
            pytest.fail(f"the README says: {line}")


def test_every_argument_is_explained() -> None:
    unexplained = [
        f"{one.name} {action.option_strings or action.dest}"
        for one in known()
        for action in actions(one.parser)
        if action.help is None and not isinstance(action.choices, dict)
    ]
    assert unexplained == []


@pytest.mark.parametrize("name", [one.name for one in known()])
def test_help_ends_with_examples_and_exit_status(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", *name.split()]) == 0
    told = capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([*name.split(), "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out == told
    if name in EXAMPLES:
        _, _, end = told.rpartition("examples:\n")
        assert all(example.line in end for example in EXAMPLES[name])
        assert "exit status: 0 done, 1 not all of it, 2 misused" in end


def test_exit_statuses_are_told_in_one_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["help", "exit-status"]) == 0
    assert [line[:3].strip() for line in capsys.readouterr().out.splitlines()] == [
        *("0", "1", "", "", "2", "130")
    ]
    assert main(["help", "nonsense"]) == 1
    assert "no command 'nonsense'" in capsys.readouterr().err


def test_manual_pages_are_well_formed(tmp_path: Path) -> None:
    assert main(["man", str(tmp_path)]) == 0
    pages = sorted(tmp_path.glob("*.1"))
    assert len(pages) == len(known())
    protect = (tmp_path / "miadmark-protect.1").read_text("utf-8")
    assert all(f".SH {head}" in protect for head in ("EXAMPLES", "EXIT STATUS"))
    checkers = [
        checker
        for checker in (
            ["mandoc", "-T", "lint", "-W", "warning"],
            ["groff", "-man", "-ww", "-z"],
        )
        if shutil.which(checker[0])
    ]
    if not checkers:
        pytest.skip("left out: mandoc is not installed (apt-get install mandoc)")
    for checker in checkers:
        done = subprocess.run(
            [*checker, *pages], capture_output=True, text=True, check=False
        )
        assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_help_loads_nothing_that_takes_long() -> None:
    """What a shell waits for: help, completion, names."""
    heavy = ("torch", "numpy", "pydicom", "pynetdicom", "cryptography", "rich", "shtab")
    code = (
        "import sys; from dicom_node.cli import made_parser; made_parser().format_help();"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
