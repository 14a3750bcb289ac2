"""People are told what needs them, by mail or webhook: gathered, and of no patient."""

from __future__ import annotations

import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from dicom_node.announcing import Announcing
from dicom_node.audit import Audit, Event
from dicom_node.audit_files import set_aside
from dicom_node.chain import Follower
from dicom_node.errors import ConfigError
from dicom_node.lookout import Lookout
from dicom_node.notices import Notice, Picture, Told, Waiting, after, news
from dicom_node.notifying import Notifying, Security, Topic
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.memory import MemoryQueue
from dicom_node.reporter import Duty
from dicom_node.telling import NotToldError, tell
from tests.certificates import Authority
from tests.conftest import NOW
from tests.receivers import a_free_port

NOTICES = [Notice(Topic.HELD, "2 more held"), Notice(Topic.DISK, "nothing is taken in")]


@dataclass
class Mailbox:
    """What a mail server does with what it gets."""

    mails: list[bytes] = field(default_factory=list)
    answer: str = "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.mails.append(envelope.content)
        return self.answer


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "site")
        self.own = self.authority.certify("server")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.own.file, self.own.key_file)
        self.secret = folder / "secret"
        self.secret.write_text("correct horse\n")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def mail_server(site: Site, mailbox: Mailbox) -> Iterator[Controller]:
    def knows(
        _s: Any, _session: Any, _envelope: Any, _how: Any, data: Any
    ) -> AuthResult:
        is_so = (data.login, data.password) == (b"node", b"correct horse")
        return AuthResult(success=is_so, handled=is_so)

    server = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=a_free_port(),
        ready_timeout=60,
        tls_context=site.context,
        require_starttls=True,
        authenticator=knows,
        auth_required=True,
    )
    server.start()
    yield server
    server.stop()


def mail_to(site: Site, port: int, **more: Any) -> Notifying:
    values: dict[str, Any] = {
        "name": "people",
        "smtp": f"127.0.0.1:{port}",
        "sender": "node@hospital.example",
        "to": ("pacs@hospital.example", "night@hospital.example"),
        "user": "node",
        "password_file": site.secret,
        "ca": site.authority.own.file,
    }
    return Notifying(**(values | more))


def test_mail_goes_over_tls_with_a_password(
    site: Site, mailbox: Mailbox, mail_server: Controller
) -> None:
    tell(mail_to(site, mail_server.port), "GATEWAY", NOTICES, NOW)
    (mail,) = mailbox.mails
    text = mail.decode()
    assert "Subject: miadmark GATEWAY: held, disk" in text
    assert "To: pacs@hospital.example, night@hospital.example" in text
    assert "- 2 more held" in text
    assert "- nothing is taken in" in text


def test_mail_that_is_not_taken_is_an_error_that_passes(
    site: Site, mailbox: Mailbox, mail_server: Controller, tmp_path: Path
) -> None:
    wanted = mail_to(site, mail_server.port)
    mailbox.answer = "451 later"
    with pytest.raises(NotToldError, match="later"):
        tell(wanted, "GATEWAY", NOTICES, NOW)
    site.secret.write_text("wrong")
    with pytest.raises(NotToldError, match="SMTPAuthenticationError"):
        tell(wanted, "GATEWAY", NOTICES, NOW)
    site.secret.write_text("grün", "utf-8")
    with pytest.raises(ConfigError, match="ASCII"):
        tell(wanted, "GATEWAY", NOTICES, NOW)
    (tmp_path / "o").mkdir()
    strange = Authority(tmp_path / "o", "other").own.file
    with pytest.raises(NotToldError, match="certificate"):
        tell(mail_to(site, mail_server.port, ca=strange), "GATEWAY", NOTICES, NOW)
    assert mailbox.mails == []


@dataclass
class Hook:
    port: int
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    status: int = 204


@pytest.fixture
def hook(site: Site) -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append((dict(self.headers), body))
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = site.context.wrap_socket(server.socket, server_side=True)
    made = Hook(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def hook_at(site: Site, hook: Hook, **more: Any) -> Notifying:
    values: dict[str, Any] = {
        "name": "hook",
        "url": f"https://127.0.0.1:{hook.port}/alerts",
        "secret_file": site.secret,
        "ca": site.authority.own.file,
    }
    return Notifying(**(values | more))


def test_a_webhook_gets_signed_json(site: Site, hook: Hook) -> None:
    tell(hook_at(site, hook), "GATEWAY", NOTICES, NOW)
    ((head, body),) = hook.got
    mac = hmac.digest(
        b"correct horse", head["X-Miadmark-Time"].encode() + b"." + body, "sha256"
    )
    assert head["X-Miadmark-Signature"] == f"sha256={mac.hex()}"
    assert int(head["X-Miadmark-Time"]) == int(NOW.timestamp())
    said = json.loads(body)
    assert said["node"] == "GATEWAY"
    assert said["notices"][0] == {"topic": "held", "says": "2 more held"}
    hook.status = 500
    with pytest.raises(NotToldError, match="answers 500"):
        tell(hook_at(site, hook), "GATEWAY", NOTICES, NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://192.0.2.1/hook"},
        {"secret_file": None},
        {"smtp": "h:25"},
        {"url": ""},
        {"about": ("weather",)},
    ],
)
def test_what_would_tell_in_the_clear_is_refused(
    site: Site, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        hook_at(site, Hook(1), **wrong)
    with pytest.raises(ConfigError, match="this machine only"):
        mail_to(site, 25, smtp="192.0.2.1:25", security=Security.NONE)


@pytest.fixture(autouse=True)
def open_files() -> Iterator[list[Follower]]:
    yield _OPEN
    while _OPEN:
        _OPEN.pop().close()


_OPEN: list[Follower] = []


class People:
    """A queue, an audit, and somebody who is told of them."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.now, self.folder = NOW, folder
        self.queue = MemoryQueue()
        self.audit = Audit(folder / "audit.jsonl", b"k" * 32, lambda: self.now)
        self.told: list[list[str]] = []
        self.is_away, self.lack, self.down = False, "", dict[str, str]()
        self.wanted = Notifying(
            name="n", url="https://h/", secret_file=Path("s"), **more
        )
        self.announcing = self.another()

    def another(self) -> Announcing:
        _OPEN.append(self.audit.follower())
        lookout = Lookout(
            self.queue,
            _OPEN[-1],
            lambda: self.now,
            lack=lambda: self.lack,
            down=lambda: self.down,
            certificates=[self.folder / "server-cert.pem"],
            backlog=timedelta(minutes=self.wanted.backlog_min),
            notice=timedelta(days=self.wanted.certificate_days),
        )
        place = self.folder / "told.json"
        return Announcing(self.wanted, lookout, place, self.tell, lambda: self.now)

    def tell(self, notices: Any, _now: datetime) -> None:
        if self.is_away:
            raise NotToldError("away")
        self.told.append([notice.says for notice in notices])

    def hold(self, count: int) -> None:
        for number in range(count):
            name = f"1.2.{self.now.timestamp()}.{number}"
            self.queue.add(Arrival(name, b"d", "f"), [Owed("out", "pacs")], self.now)
            job = self.queue.claim(self.now, timedelta(minutes=1))
            assert job is not None
            self.queue.hold(job, "why")

    def wait(self, seconds: float) -> int:
        self.now += timedelta(seconds=seconds)
        return self.announcing.tend()


def test_many_are_gathered_into_one_message_and_none_is_told_twice(
    tmp_path: Path,
) -> None:
    people = People(tmp_path)
    assert people.wait(0) == 0
    people.hold(30)
    assert people.wait(1) == 0  # gathering
    people.lack = "5 MB are free, 9 are wanted"
    assert people.wait(10) == 2
    ((held, disk),) = people.told
    assert held.startswith("30 more held, 30 in all; jobs: 1 on out to pacs")
    assert "and 20 more" in held
    assert "1.2." not in held
    assert disk == "nothing is taken in: 5 MB are free, 9 are wanted"
    people.hold(1)
    assert people.wait(200) == 0  # not too often
    people.lack, people.down = "", {"pacs": "refused"}
    assert people.wait(200) == 3
    assert people.told[1][0].startswith("1 more held, 31 in all")
    assert people.told[1][1:] == [
        "destination pacs is down: refused",
        "there is room on the disk again",
    ]
    people.down = {}
    for _ in range(20):
        people.wait(60)
    assert people.told[2:] == [["destination pacs is up again"]]


def test_who_is_away_is_told_later_and_once_also_after_a_restart(
    tmp_path: Path,
) -> None:
    people = People(tmp_path)
    people.audit.add(Event.KEYS, did="long ago")
    people.audit.add(Event.STARTED)
    people.is_away = True
    people.wait(0)
    people.hold(1)
    for _ in range(3):
        with pytest.raises(NotToldError):
            people.wait(400)
    people.is_away = False
    people.announcing = people.another()
    people.wait(400)
    people.wait(400)
    people.announcing = people.another()
    people.wait(400)
    people.wait(400)
    assert [len(one) for one in people.told] == [2]
    assert people.told[0][0] == "the node was started"
    people.audit.add(Event.STOPPED)
    people.announcing.tend(at_once=True)
    assert people.told[1:] == [["the node was told to stop"]]


def test_only_what_was_asked_for_is_told(tmp_path: Path) -> None:
    people = People(tmp_path, about=("security",))
    people.audit.add(Event.STARTED)
    people.wait(0)
    people.hold(1)
    people.audit.add(Event.INSECURE, study="1.2.3")
    people.wait(0)
    people.wait(400)
    assert people.told == [["an original went out without TLS"]]


def test_an_audit_that_is_not_whole_is_told(tmp_path: Path) -> None:
    people = People(tmp_path)
    for number in range(5):
        people.audit.add(Event.KEYS, did=str(number))
    lines = people.audit.path.read_bytes().splitlines(keepends=True)
    people.audit.path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    people.wait(0)
    people.wait(400)
    ((said,),) = people.told
    assert said.startswith("the audit is not whole: something before entry 3")


def test_what_is_new_is_told_after_a_file_of_the_audit_was_put_aside(
    tmp_path: Path,
) -> None:
    people = People(tmp_path, about=(Topic.SECURITY,))
    people.audit = Audit(
        people.audit.path, b"k" * 32, lambda: people.now, most_bytes=1500
    )
    for _ in range(20):
        people.audit.add(Event.READ, what="nothing")
        people.wait(0)
    assert set_aside(people.audit.path)
    people.audit.add(Event.INSECURE, study="1.2.3")
    people.wait(0)
    people.wait(400)
    assert people.told == [["an original went out without TLS"]]


def test_a_duty_goes_on_after_what_nobody_has_foreseen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns, stopping = [], threading.Event()

    def tend(*, at_once: bool) -> int:
        turns.append(at_once)
        if len(turns) < 3:
            raise KeyError("DOE^JANE")
        stopping.set()
        return 0

    Duty("notify", tend, 0.01).run(stopping)
    assert len(turns) == 3
    assert "notify waits: KeyError in test_notify.py" in caplog.text
    assert "DOE" not in caplog.text


def test_a_certificate_is_told_in_time(tmp_path: Path) -> None:
    Authority(tmp_path, "site").certify("server", until=timedelta(days=9))
    people = People(tmp_path)
    people.now = datetime.now(NOW.tzinfo)
    people.wait(0)
    people.wait(400)
    people.wait(400)
    ((said,),) = people.told
    assert "server-cert.pem expires on 20" in said


def test_uids_are_told_where_that_is_wanted() -> None:
    picture = Picture(held={7: Waiting(7, "1.2.3", "out", "pacs")}, oldest_min=90)
    said = [notice.says for notice in news(picture, Told(), with_uids=True)]
    assert "(1.2.3)" in said[0]
    assert "90 minutes" in said[1]
    assert news(picture, after(picture)) == []
    assert [n.says for n in news(Picture(), after(picture))] == [
        "nothing waits for long any more"
    ]
