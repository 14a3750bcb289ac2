"""The audit reaches a syslog server over TLS: each entry, in order, whatever breaks."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from lxml import etree

from dicom_node.audit import Audit, Event
from dicom_node.audit_message import Origin
from dicom_node.audit_sending import AuditSending, sent_until
from dicom_node.auditing import Auditing
from dicom_node.demo.loopback import await_that
from dicom_node.errors import AuditError
from dicom_node.syslog import SyslogError, SyslogServer
from tests.certificates import Authority
from tests.conftest import NOW
from tests.receivers import a_free_port
from tests.syslog_server import LINE, Repository, repository
from tests.unit.node.test_audit_message import SCHEMA, details

KEY = b"k" * 32
WITHIN = timedelta(seconds=20)


class Site:
    """An audit, and what sends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "site")
        self.server = self.authority.certify("repository")
        self.client = self.authority.certify("gateway")
        self.audit = Audit(folder / "audit.jsonl", KEY, lambda: NOW, most_bytes=20_000)
        self.place = folder / "audit-syslog.json"
        self.port = a_free_port()

    def wanted(self, **more: object) -> Auditing:
        values: dict[str, object] = {
            "syslog": f"127.0.0.1:{self.port}",
            "ca": self.authority.own.file,
            "certificate": self.client.file,
            "key": self.client.key_file,
        }
        return Auditing(**(values | more))  # type: ignore[arg-type]

    @contextmanager
    def sending(self, **more: object) -> Iterator[AuditSending]:
        origin = Origin("gateway", "Hospital", "MIADMARK", "1")
        with SyslogServer(self.wanted(**more)) as server:
            made = AuditSending(self.audit, self.place, server, origin, "host")
            try:
                yield made
            finally:
                made.close()

    @contextmanager
    def repository(self) -> Iterator[Repository]:
        with repository(self.server, self.authority.own, self.port) as made:
            yield made

    def write(self, count: int) -> None:
        for number in range(count):
            self.audit.add(Event.RELEASED, study=f"1.2.{number}", grant=number)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def numbers(messages: list[bytes]) -> list[int]:
    found = []
    for one in messages:
        root = etree.fromstring(one)
        assert SCHEMA.validate(root), SCHEMA.error_log
        found.append(int(details(root)["entry"]))
    return found


def drain(sending: AuditSending) -> None:
    while sending.tend():
        pass


def test_every_entry_arrives_once_and_in_order(site: Site) -> None:
    site.write(250)
    with site.repository() as server, site.sending() as sending:
        drain(sending)
        site.write(5)
        drain(sending)
        await_that(lambda: len(server.messages) == 255, "messages", within=WITHIN)
        assert numbers(server.xml()) == list(range(1, 256))
        assert len(server.peers) == 1
        assert server.peers[0]["subject"] == ((("commonName", "gateway"),),)
    assert sent_until(site.place) == site.audit.head()


def test_a_server_that_is_away_loses_nothing(site: Site) -> None:
    site.write(3)
    with site.sending() as sending:
        for _ in range(2):
            with pytest.raises(SyslogError, match="takes nothing"):
                sending.tend()
        site.write(3)
        with site.repository() as server:
            drain(sending)
            await_that(lambda: len(server.messages) == 6, "messages", within=WITHIN)
            assert numbers(server.xml()) == list(range(1, 7))
        site.write(2)
        with pytest.raises(SyslogError):
            sending.tend()
        with site.repository() as server:
            drain(sending)
            await_that(lambda: len(server.messages) == 2, "messages", within=WITHIN)
            assert numbers(server.xml()) == [7, 8]


def test_who_begins_again_goes_on_where_the_other_has_ended(site: Site) -> None:
    site.write(120)
    with site.repository() as server:
        with site.sending() as sending:
            assert sending.tend() == 100
        with site.sending() as sending:
            drain(sending)
        await_that(lambda: len(server.messages) == 120, "messages", within=WITHIN)
        assert numbers(server.xml()) == list(range(1, 121))


class CutOff:
    """A server whose first connection breaks in the middle of what it is sent."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.is_first = True

    def deliver(self, texts: list[bytes]) -> None:
        self.messages += texts[:7] if self.is_first else texts
        if self.is_first:
            self.is_first = False
            raise SyslogError("it hung up")


def test_what_may_not_have_arrived_is_sent_again(site: Site) -> None:
    """A cut connection repeats entries, and says which; none is left out."""
    site.write(20)
    server = CutOff()
    sending = AuditSending(
        site.audit, site.place, server, Origin("gateway", "Hospital", "M", "1"), "host"
    )
    with pytest.raises(SyslogError):
        sending.tend()
    assert sent_until(site.place).number == 0
    drain(sending)
    sending.close()
    found = [LINE.fullmatch(one) for one in server.messages]
    sent = numbers([one.group(5) for one in found if one is not None])
    assert sent == [*range(1, 8), *range(1, 21)]


def test_only_who_is_known_gets_the_audit(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "another")
    site.write(1)
    with site.repository() as server:
        for more in ({"ca": other.own.file}, {"hostname": "repository.example"}):
            with site.sending(**more) as sending, pytest.raises(SyslogError):
                sending.tend()
        stranger = other.certify("stranger")
        shown = {"certificate": stranger.file, "key": stranger.key_file}
        with site.sending(**shown) as sending, pytest.raises(SyslogError):
            sending.tend()
        time.sleep(0.1)
        assert server.messages == []
    assert sent_until(site.place).number == 0


def test_nothing_after_a_bad_entry_is_sent(site: Site) -> None:
    site.write(8)
    lines = site.audit.path.read_bytes().splitlines(keepends=True)
    site.audit.path.write_bytes(b"".join([*lines[:5], *lines[6:]]))
    with site.repository() as server, site.sending() as sending:
        assert sending.tend() == 5
        with pytest.raises(AuditError, match="before entry 6"):
            sending.tend()
        await_that(lambda: len(server.messages) == 5, "messages", within=WITHIN)
        assert numbers(server.xml()) == [1, 2, 3, 4, 5]


def test_an_audit_that_was_cut_off_is_not_taken_for_the_same(site: Site) -> None:
    site.write(8)
    with site.repository(), site.sending() as sending:
        drain(sending)
    lines = site.audit.path.read_bytes().splitlines(keepends=True)
    site.audit.path.write_bytes(b"".join(lines[:5]))
    site.write(6)
    with (
        site.repository(),
        site.sending() as sending,
        pytest.raises(AuditError, match=r"entry 8 .* is not the one"),
    ):
        sending.tend()


RSYSLOG = """\
global(
  workDirectory="{folder}"
  defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{certificate}"
  defaultNetstreamDriverKeyFile="{key}"
  maxMessageSize="64k"
)
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1"
       StreamDriver.AuthMode="x509/certvalid")
template(name="whole" type="string" string="%pri% %msgid% %msg%\\n")
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="audit")
ruleset(name="audit") {{ action(type="omfile" file="{folder}/got" template="whole") }}
"""


@pytest.mark.skipif(
    shutil.which("rsyslogd") is None
    or not list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")),
    reason="needs rsyslog (apt-get install rsyslog rsyslog-gnutls)",
)
def test_rsyslog_takes_it(site: Site) -> None:
    folder = site.folder / "rsyslog"
    folder.mkdir()
    (folder / "conf").write_text(
        RSYSLOG.format(
            folder=folder,
            ca=site.authority.own.file,
            certificate=site.server.file,
            key=site.server.key_file,
            port=site.port,
        )
    )
    command = ["rsyslogd", "-n", "-f", str(folder / "conf"), "-i", str(folder / "pid")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    got = folder / "got"
    try:
        site.write(50)
        with site.sending() as sending:

            def all_are_sent() -> bool:
                try:
                    drain(sending)
                except SyslogError:
                    return False  # it has not begun yet
                return True

            await_that(all_are_sent, "rsyslog", within=WITHIN)
            await_that(
                lambda: got.exists() and got.read_bytes().count(b"\n") == 50,
                "messages",
                within=WITHIN,
            )
    finally:
        process.terminate()
        process.wait(timeout=20)
    lines = got.read_bytes().splitlines()
    assert all(line.startswith(b"85 DICOM+RFC3881 ") for line in lines)
    found = [line[line.index(b"<Audit") :] for line in lines]
    assert numbers(found) == list(range(1, 51))
