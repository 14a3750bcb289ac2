"""A client of release desks, and what it makes of desks that are none, or not there."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dicom_node.asking import answer
from dicom_node.errors import KeyServiceError
from miadmark_core.errors import DamagedSealError
from tests.certificates import Authority
from tests.desks import World, a_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as made:
        yield made


def test_a_client_believes_no_desk_of_another_authority(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "authority")
    with pytest.raises(KeyServiceError, match="SSLError"):
        world.open(world.site.mark(), world.client(ca=other.own.file))


class HostileDesk(http.server.BaseHTTPRequestHandler):
    """Answers what it is told to, and counts how often it was asked."""

    answers: list[tuple[int, bytes]]
    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.answers[min(self.asked, len(self.answers)) - 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "https://127.0.0.1:1/elsewhere")
        self.send_header("Retry-After", "3600")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hostile(world: World, *answers: tuple[int, bytes]) -> Iterator[type[HostileDesk]]:
    kind = type("Hostile", (HostileDesk,), {"answers": list(answers)})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(world.desk.file, world.desk.key_file)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        world.address = f"https://127.0.0.1:{server.server_port}"
        try:
            yield kind
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "answered",
    [
        pytest.param((200, b"<html>"), id="a page"),
        pytest.param((200, b"{}"), id="another object"),
        pytest.param((200, b"[" * 8000), id="brackets"),
        pytest.param((200, answer(bytes(100_000))), id="an endless key"),
        pytest.param((302, b""), id="somewhere else"),
        pytest.param((404, b""), id="nothing there"),
        pytest.param((500, b""), id="a failure"),
    ],
)
def test_what_is_no_answer_is_trouble_that_may_pass(
    world: World, answered: tuple[int, bytes]
) -> None:
    with hostile(world, answered) as asked, pytest.raises(KeyServiceError):
        world.open(world.site.mark())
    assert asked.asked == 1


def test_a_key_that_a_desk_makes_up_opens_nothing(world: World) -> None:
    with hostile(world, (200, answer(bytes(1168)))), pytest.raises(DamagedSealError):
        world.open(world.site.mark())


def test_a_busy_desk_is_asked_three_times_and_no_more(world: World) -> None:
    waits: list[float] = []
    with hostile(world, (503, b"")) as asked:
        client = world.client(sleep=waits.append)
        with pytest.raises(KeyServiceError, match="for now"):
            world.open(world.site.mark(), client)
    assert (asked.asked, waits) == (3, [0.2, 1.0])


def test_a_desk_that_nobody_runs_is_trouble_that_may_pass(world: World) -> None:
    waits: list[float] = []
    world.address = "https://127.0.0.1:1"
    with pytest.raises(KeyServiceError, match="cannot be reached"):
        world.open(world.site.mark(), world.client(sleep=waits.append))
    assert waits == [0.2, 1.0]


def test_a_client_without_its_files_says_which_kind(world: World) -> None:
    with pytest.raises(KeyServiceError, match="cannot be asked"):
        world.open(world.site.mark(), world.client(ca=Path("/nowhere")))
