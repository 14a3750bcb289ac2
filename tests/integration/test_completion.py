"""What shells complete: real ones, as far as they are here, asked as TAB asks them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import miadmark

CONFIG = """
[[route]]
name = "to research"
[[route]]
name = "tö partner, marked"
[[destination]]
name = "research"
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scripts for shells, a configuration, a study, and the command."""
    work = tmp_path_factory.mktemp("work")
    for shell in ("bash", "zsh", "fish"):
        done = miadmark("completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        (work / f"script.{shell}").write_text(done.stdout)
    (work / "node.toml").write_text(CONFIG)
    (work / "broken.toml").write_text("[[route")
    (work / "study").mkdir()
    (work / "study.dcm").touch()
    command = work / "bin" / "miadmark"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m dicom_node "$@"\n')
    command.chmod(0o755)
    return work


def in_bash(work: Path, line: str) -> list[str]:
    """Return what bash offers at the end of a line; an empty word counts."""
    script = """
source ./script.bash
eval "COMP_WORDS=($1)"
[[ $1 == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$1 COMP_POINT=${#1}
said=$(complete -p miadmark); said=${said#*-F }; ${said%% *}
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", line],
        capture_output=True,
        text=True,
        check=True,
        cwd=work,
        env=os.environ | {"PATH": f"{work / 'bin'}:{os.environ['PATH']}"},
    )
    # What compopt says where no completion is going on.
    assert all("compopt" in line for line in done.stderr.splitlines()), done.stderr
    return [found for found in done.stdout.splitlines() if found]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("miadmark prot", ["protect"]),
        ("miadmark keys ro", ["rotate"]),
        ("miadmark keys rotate ", ["epoch", "identity", "signing", "root"]),
        ("miadmark protect --prof", ["--profile"]),
        (
            "miadmark protect study --profile ",
            ["standard", "fast", "strong", "logo"],
        ),
        ("miadmark protect stu", ["study", "study.dcm"]),
        ("miadmark protect study --out stu", ["study"]),
        ("miadmark serve --config nod", ["node.toml"]),
        ("miadmark receiv", []),
        ("miadmark route hold --config node.toml ", ["to\\ research", "tö*"]),
        ("miadmark route hold --config node.toml to", ["to\\ research"]),
        ("miadmark route hold --config broken.toml ", []),
        ("miadmark route hold ", []),
    ],
)
def test_bash_offers(work: Path, line: str, offered: list[str]) -> None:
    found = in_bash(work, line)
    assert len(found) == len(offered)
    for name, wanted in zip(sorted(found), sorted(offered), strict=True):
        assert name == wanted or (wanted.endswith("*") and name.startswith(wanted[:-1]))


def test_a_name_that_bash_offers_is_one_word(work: Path) -> None:
    (name,) = in_bash(work, "miadmark route hold --config node.toml t\\ö")
    done = subprocess.run(
        ["bash", "-c", f"printf '[%s]' {name}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[tö partner, marked]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_one_that_its_shell_can_read(work: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"left out: {shell} is not installed (apt-get install {shell})")
    done = subprocess.run(
        [shell, "-n", work / f"script.{shell}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_takes_what_it_is_given(work: Path) -> None:
    """It has a function for the command, and the names come as they are."""
    if shutil.which("zsh") is None:
        pytest.skip("left out: zsh is not installed (apt-get install zsh)")
    script = """
autoload -U compinit && compinit -D
eval "$(<script.zsh)"
print -r -- ${_comps[miadmark]}
compadd() { shift; print -rl -- ${(P)1} }
words=(miadmark route hold --config node.toml '')
_miadmark_names_routes
"""
    done = subprocess.run(
        ["zsh", "-f", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=work,
        env=os.environ | {"PATH": f"{work / 'bin'}:{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    function, *names = done.stdout.splitlines()
    assert "miadmark" in function
    assert names == ["to research", "tö partner, marked"]


def test_names_are_those_of_the_file(work: Path) -> None:
    done = miadmark("config", "names", "destinations", work / "node.toml")
    assert (done.stdout, done.returncode) == ("research\n", 0)
    done = miadmark("config", "names", "routes", work / "broken.toml")
    assert (done.stdout, done.returncode) == ("", 1)
    assert "cannot be read as TOML" in done.stderr
