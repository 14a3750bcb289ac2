"""From nothing to a marked study: what ``init`` writes serves at once."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from dicom_node import private_block
from dicom_node.cli import main
from dicom_node.config_file import load
from dicom_node.demo.loopback import LOOPBACK, await_that
from dicom_node.demo.selftest import pixels
from dicom_node.filters.mark import mark
from dicom_node.keys.sealer import Sealer
from dicom_node.routing import Action
from dicom_node.sockets import listening_socket
from dicom_node.state import State
from miadmark_core.search.finder import Finder
from tests.certificates import Authority
from tests.conftest import miadmark, opened
from tests.nodes import Node
from tests.receivers import a_free_port, storescp


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One in a folder of its own; it is made by the tests, and ended here."""
    made = Node(tmp_path / "node")
    try:
        yield made
    finally:
        made.stop()


class Done(NamedTuple):
    """How a command has ended in this very process."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def done(*arguments: object) -> Done:
        return Done(main([*map(str, arguments)]), *capsys.readouterr())

    return done


def answers(port: int) -> str:
    return f"RESEARCH@{LOOPBACK}:{port}"


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(folder)): one.read_bytes() if one.is_file() else b""
        for one in sorted(folder.rglob("*"))
    }


@pytest.mark.peers
@pytest.mark.timeout(1200)  # it loads torch three times, perhaps on a busy machine
@pytest.mark.usefixtures("peers")
def test_a_first_object_is_marked_and_nothing_is_wrong(
    run: Run, node: Node, tmp_path: Path, images: Path
) -> None:
    with storescp(tmp_path / "research") as research:
        made = miadmark(
            *(
                "init",
                node.folder,
                "--role",
                "egress",
                "--marked-to",
                answers(research),
            ),
            *("--port", node.port, "--profile", "fast", "--json"),
        )
        assert made.returncode == 0, made.stderr
        said = json.loads(made.stdout)
        assert said["wrote_config"]
        assert said["made_keys"]
        command = shlex.split(said["next"][0])
        assert command[1:] == ["serve", "--config", str(node.config)]

        node.start()
        assert node.send(images / "ct.dcm", called="MIADMARK") == 0
        received = tmp_path / "research"

        def is_there() -> bool:
            queue = State(Path(said["state"])).queue()
            try:
                return queue.counts()["sent"] == 1  # type: ignore[index]
            finally:
                queue.close()

        await_that(is_there, "the object", within=timedelta(minutes=8))
        (marked,) = received.iterdir()
        assert pixels(marked) != pixels(images / "ct.dcm")
        assert private_block.find(opened(marked).elements) is not None

        running = miadmark("doctor", "--config", node.config, "--json")
        assert running.returncode == 0, running.stdout
        found = json.loads(running.stdout)
        assert found["wrong"] == 0
        assert {"about": "node", "level": "ok"}.items() <= next(
            one for one in found["findings"] if one["about"] == "node"
        ).items()
        node.stop()
        before = everything(node.folder)
        stopped = run("doctor", "--config", node.config, "--full", "--skip", "codecs")
        assert stopped.returncode == 0, stopped.stdout
        assert "0 wrong" in stopped.stdout
        assert everything(node.folder) == before
    down = run("doctor", "--config", node.config, "--skip", "codecs")
    assert down.returncode == 1
    assert "wrong peers: research" in down.stdout


def test_what_is_made_twice_is_made_once(run: Run, node: Node) -> None:
    options = ("--role", "egress", "--marked-to", answers(9), "--port", node.port)
    first = run("init", node.folder, *options, "--json")
    assert first.returncode == 0, first.stderr
    before = everything(node.folder)
    again = run("init", node.folder, *options, "--json")
    assert again.returncode == 0, again.stderr
    assert not json.loads(again.stdout)["wrote_config"]
    assert not json.loads(again.stdout)["made_keys"]
    assert everything(node.folder) == before

    other = run("init", node.folder, *options, "--ae-title", "OTHER")
    assert other.returncode == 1
    assert "says something else" in other.stderr
    assert everything(node.folder) == before
    told = run("init", node.folder, *options, "--ae-title", "OTHER", "--overwrite")
    assert told.returncode == 0, told.stderr
    config = load(node.config)
    assert config.node.ae_title == "OTHER"
    fingerprint = json.loads(first.stdout)["fingerprint"]
    assert config.node.fingerprint == fingerprint


def test_a_file_of_somebody_else_keeps_keys_from_being_made(
    run: Run, node: Node
) -> None:
    node.folder.mkdir()
    node.config.write_text("# mine\n")
    done = run(
        *("init", node.folder, "--role", "egress", "--marked-to", answers(9)),
        *("--port", node.port, "--yes"),
    )
    assert done.returncode == 1
    assert everything(node.folder) == {"node.toml": b"# mine\n"}


def test_a_port_that_is_taken_is_told_before_anything_is_made(
    run: Run, node: Node
) -> None:
    options = ("--role", "egress", "--marked-to", answers(9), "--port", node.port)

    class Place:
        bind, port = LOOPBACK, node.port

    with listening_socket(Place()):
        done = run("init", node.folder, *options, "--yes")
        assert done.returncode == 1
        assert f"127.0.0.1:{node.port} cannot be listened on" in done.stderr
        assert not node.folder.exists()
        assert run("init", node.folder, *options, "--yes", "--anyway").returncode == 0
    assert node.config.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "what the node is for"),
        (("--role", "egress"), "who gets what is marked"),
        (("--role", "receiving"), "who gets originals"),
        (("--role", "both", "--marked-to", "A@h:1"), "who gets originals"),
        (("--role", "egress", "--marked-to", "nobody"), "names no receiver"),
        (("--role", "egress", "--marked-to", "A@h:1", "--bind", "::"), "TLS"),
        (("--role", "receiving", "--originals-to", "A@h:1"), "who answers there"),
        (
            ("--role", "egress", "--marked-to", "A@h:1", "--ae-title", "X" * 17),
            "1 to 16",
        ),
    ],
)
def test_what_cannot_work_makes_nothing(
    run: Run, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    done = run("init", tmp_path / "node", *options, "--yes")
    assert done.returncode == 1
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_receiving_site_strips_for_its_archive(
    run: Run, node: Node, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "archive")
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    made = run(
        *("init", node.folder, "--role", "receiving", "--port", node.port),
        *("--originals-to", f"PACS@{LOOPBACK}:{a_free_port()}"),
        *("--originals-ca", authority.own.file, "--passphrase-file", secret),
        "--yes",
    )
    assert made.returncode == 0, made.stderr
    config = load(node.config)
    assert [route.action for route in config.routes] == [Action.STRIP]
    assert config.destinations[0].tls_ca == authority.own.file
    assert not config.routes[0].insecure
    state = config.node.state
    assert State(state).keys().ring.root["file"] == str(secret)
    assert "grant add --ae-title PACS --certificate" in made.stdout
    checked = run("config", "check", node.config)
    assert checked.returncode == 0, checked.stdout


def test_another_sites_desk_is_named(run: Run, node: Node, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "that-site")
    own = authority.certify("this-site")
    own.key_file.chmod(0o600)
    options = (
        *("init", node.folder, "--role", "receiving", "--port", node.port),
        *("--originals-to", "PACS@127.0.0.1:9", "--insecure", "--yes"),
        *("--desk", f"https://127.0.0.1:{a_free_port()}", "--gateway", "00" * 16),
    )
    half = run(*options)
    assert half.returncode == 1
    assert "--desk-ca" in half.stderr
    made = run(
        *(*options, "--desk-ca", authority.own.file),
        *("--desk-certificate", own.file, "--desk-key", own.key_file),
    )
    assert made.returncode == 0, made.stderr
    (desk,) = load(node.config).desks
    assert (desk.gateway, desk.certificate) == ("00" * 16, own.file)


def mark_at(state: State, original: Path, finder: Finder) -> bytes:
    """Return an object as a site marks it that is in a hurry."""
    sealer = Sealer(state.keys(), count(1).__next__)
    (marked,) = mark(
        [opened(original)],
        find=finder.find,
        keys=sealer,
        now=datetime.now(UTC),
        holds_weak=False,
    )
    if isinstance(marked, Exception):
        raise marked
    return marked.file.to_bytes()


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
@pytest.mark.timeout(600)
def test_what_one_site_marks_another_gives_to_its_archive(
    run: Run, node: Node, tmp_path: Path, images: Path, finder: Finder
) -> None:
    """As the manual has it, command by command."""
    marking = tmp_path / "marking"
    with storescp(tmp_path / "pacs", "--bit-preserving") as pacs:
        made = run(
            *("init", node.folder, "--role", "receiving", "--port", node.port),
            *("--originals-to", f"PACS@{LOOPBACK}:{pacs}", "--insecure", "--json"),
        )
        assert made.returncode == 0, made.stderr
        steps = [shlex.split(step)[1:] for step in json.loads(made.stdout)["next"]]
        export, trust, propose, approve, *_ = steps
        state = ("--state", marking)
        for command in (
            [*export[:-4], "--out", tmp_path / "this.site", *export[-2:]],
            ["keys", "add-recipient", tmp_path / "this.site", *state],
            ["keys", "export-recipient", "--out", tmp_path / "that.site", *state],
            [tmp_path / "that.site" if one == "that.site" else one for one in trust],
            ["grant", "rule", "--approvers", "1", *approve[-2:]],
            propose,
        ):
            done = run(*command)
            assert done.returncode == 0, done.stderr
        marked = tmp_path / "ct.dcm"
        marked.write_bytes(mark_at(State(marking), images / "ct.dcm", finder))
        node.start()
        assert node.send(marked, called="MIADMARK") == 0
        queue = State(load(node.config).node.state).history()
        try:
            await_that(
                lambda: [one.state for one in queue.stands()] == ["sent"],
                "the original",
                within=timedelta(minutes=8),
            )
        finally:
            queue.close()
        (original,) = (tmp_path / "pacs").iterdir()
        assert pixels(original) == pixels(images / "ct.dcm")


def test_both_have_titles_of_their_own(run: Run, node: Node) -> None:
    made = run(
        *("init", node.folder, "--role", "both", "--port", node.port),
        *("--marked-to", answers(9), "--originals-to", "PACS@127.0.0.1:9"),
        *("--insecure", "--json"),
    )
    assert made.returncode == 0, made.stderr
    routes = {route.action: route for route in load(node.config).routes}
    assert routes[Action.MARK].called_ae_titles == ("MIADMARK",)
    assert routes[Action.STRIP].called_ae_titles == ("MIADSTRIP",)
    assert routes[Action.STRIP].insecure


def test_a_listener_with_certificates(run: Run, node: Node, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "hospital")
    gateway = authority.certify("gateway")
    gateway.key_file.chmod(0o600)
    made = run(
        *("init", node.folder, "--role", "egress", "--marked-to", answers(9)),
        *("--bind", "::", "--port", node.port, "--certificate", gateway.file),
        *("--key", gateway.key_file, "--client-ca", authority.own.file, "--yes"),
    )
    assert made.returncode == 0, made.stderr
    (door,) = load(node.config).listeners
    assert door.asks_for_certificates
    assert door.refuses_unknown


@contextmanager
def on_a_terminal(*arguments: object) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run the command where somebody can answer; what it is asked and told is there."""
    ours, its = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node", *map(str, arguments)],
            stdin=its,
            stdout=its,
            stderr=its,
        )
    finally:
        os.close(its)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_person_is_asked(node: Node) -> None:
    said = b""
    answered = {
        b"What for": "what\negress\n",
        b"AE title": "GATE\n",
        b"Port": f"{node.port}\n",
        b"Who gets": f"{answers(9)}\n",
    }
    with on_a_terminal("init", node.folder, "--profile", "fast") as (terminal, process):
        while True:
            try:
                said += os.read(terminal, 4096)
            except OSError:
                break  # it has ended
            for question in list(answered):
                if question in said:
                    os.write(terminal, answered.pop(question).encode())
        code = process.wait(timeout=200)
    assert code == 0, said
    assert b"'what' is none of egress, receiving, both" in said
    assert b"next: " in said
    written = tomllib.loads(node.config.read_text("utf-8"))
    assert written["node"]["ae_title"] == "GATE"
    assert written["listener"][0]["port"] == node.port


def test_without_a_configuration_the_installation_is_looked_at(
    run: Run, tmp_path: Path
) -> None:
    done = run("doctor", "--state", tmp_path / "none", "--json")
    assert done.returncode == 0, done.stdout
    found = {one["about"] for one in json.loads(done.stdout)["findings"]}
    assert {"python", "packages", "codecs", "state"} <= found
    assert not (tmp_path / "none").exists()
    odd = run("doctor", "--skip", "nothing")
    assert odd.returncode == 1
    assert "no check is called 'nothing'" in odd.stderr
