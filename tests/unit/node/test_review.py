"""What a configuration means, and what may not be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config_file import load
from dicom_node.review import left_behind, warnings_of
from tests.conftest import miadmark

BASE = """
[[destination]]
name = "a"
ae_title = "A"
host = "127.0.0.1"
"""
FAR = BASE.replace("127.0.0.1", "192.0.2.1")
ROUTE = '[[route]]\nname = "{}"\ndestination = "a"\naction = "{}"\n'
PASSING = ROUTE.format("p", "pass")

MEANT = {
    "one route": BASE + PASSING,
    "routes that never meet": BASE
    + PASSING
    + 'modalities = ["CT"]\n'
    + ROUTE.format("m", "mark")
    + 'modalities = ["MR"]\n',
}
ODD = {
    "marked, and as it came": (
        BASE + PASSING + 'modalities = ["CT", "MR"]\n' + ROUTE.format("m", "mark"),
        "'p' and 'm' may send the same instance to 'a', marked and as it came",
    ),
    "twice": (
        BASE + PASSING + ROUTE.format("q", "pass") + 'where.StationName = ["CT1"]\n',
        "'q' is shadowed",
    ),
    "twice, the other way round": (
        BASE + PASSING + 'modalities = ["CT"]\n' + ROUTE.format("q", "pass"),
        "'p' is shadowed",
    ),
    "a destination that nobody uses": (
        BASE + BASE.replace('"a"', '"b"') + PASSING,
        "'b' is used by no route",
    ),
    "no TLS": (FAR + PASSING, "'a' is reached without TLS"),
    "originals without TLS": (
        BASE + ROUTE.format("s", "strip"),
        "it will release none",
    ),
    "a listener without TLS": (
        BASE + PASSING + '[[listener]]\nbind = "0.0.0.0"\nplaintext = true\n',
        "0.0.0.0:11112 has no TLS",
    ),
    "a title that is refused": (
        BASE
        + PASSING
        + 'calling_ae_titles = ["CT2"]\n[[listener]]\nunknown_peers = "refuse"\n'
        + '[[peer]]\nae_title = "CT1"\n',
        "'p' is for AE titles that no",
    ),
    "several destinations, and one in a pool": (
        BASE
        + BASE.replace('"a"', '"b"')
        + '[[pool]]\nname = "either"\nmembers = ["a", "b"]\n'
        + ROUTE.format("m", "mark").replace(
            'destination = "a"', 'destinations = ["either"]'
        )
        + PASSING.replace('destination = "a"', 'destinations = ["b"]'),
        "'m' and 'p' may send the same instance to 'b', marked and as it came",
    ),
    "a pool that nobody uses": (
        BASE + PASSING + '[[pool]]\nname = "none"\nmembers = ["a"]\n',
        "pool 'none' is used by no route",
    ),
    "glass that anybody may break": (
        BASE + PASSING + "[break_glass]\nallowed = true\n",
        "whoever can run the command",
    ),
    "no route": (BASE, "everything is refused"),
}


def written(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", MEANT.values(), ids=MEANT.keys())
def test_nothing_is_said_of_what_is_meant(tmp_path: Path, text: str) -> None:
    assert warnings_of(load(written(tmp_path, text))) == []


@pytest.mark.parametrize(("text", "says"), ODD.values(), ids=ODD.keys())
def test_what_may_not_be_meant_is_told(tmp_path: Path, text: str, says: str) -> None:
    assert any(says in line for line in warnings_of(load(written(tmp_path, text))))


def test_who_waits_for_a_route_that_is_gone_is_counted(tmp_path: Path) -> None:
    config = load(written(tmp_path, BASE + PASSING))
    (line,) = left_behind(config, {"p": 3, "gone": 7})
    assert "'gone'" in line
    assert "7 jobs" in line


def test_a_file_that_is_not_there_is_found_by_checking(tmp_path: Path) -> None:
    path = written(tmp_path, BASE + 'tls_ca = "ca.pem"\n' + PASSING)
    done = miadmark("config", "check", path)
    assert done.returncode == 1
    assert "ca.pem cannot be read" in done.stderr
    (tmp_path / "ca.pem").touch()
    done = miadmark("config", "check", path)
    assert done.returncode == 0
    assert "destination: a: A at 127.0.0.1:11112, TLS" in done.stdout
