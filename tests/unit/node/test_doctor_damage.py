"""Whatever is damaged is found and named, and looking for it changes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sqlite3
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dicom_node.demo.loopback import await_that
from dicom_node.doctor.examination import CHECKS
from dicom_node.doctor.papers import papers
from dicom_node.finders import SHIPPED_WEIGHTS
from dicom_node.keys.keyring import Keyring
from dicom_node.listening import Listening
from dicom_node.sockets import listening_socket
from dicom_node.vitals import Vitals
from dicom_node.watching import Metrics
from dicom_node.web.metrics import serve_metrics
from tests.certificates import DAY, Authority
from tests.conftest import NOW
from tests.receivers import a_free_port, storescp
from tests.sites import MONTHS, Site, a_site, copied

SLOW = ("torch", "weights", "codecs", "peers")
"""Looked at only where one of them is damaged; all of them are in ``test_first_run``."""
QUICK = [name for name in CHECKS if name not in SLOW]

Plant = Callable[[Site], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return a_site(tmp_path_factory.mktemp("site") / "sound")


@pytest.fixture
def site(sound: Site, tmp_path: Path) -> Site:
    return copied(sound, tmp_path / "site")


def garbled(path: Path, at: int, length: int = 2000) -> None:
    """Change each byte of a part of a file."""
    with path.open("r+b") as stream:
        stream.seek(at)
        was = stream.read(length)
        stream.seek(at)
        stream.write(bytes(byte ^ 0xA5 for byte in was.ljust(length, b"\0")))


def page(name: str) -> Plant:
    return lambda site: garbled(site.state.folder / f"{name}.sqlite", 4096)


def certified(
    name: str,
    *,
    until: timedelta = MONTHS,
    since: timedelta = -2 * DAY,
) -> Plant:
    """Have the gateway show a certificate of another time."""

    def plant(site: Site) -> None:
        other = Authority(site.pki, name)
        made = other.certify("gateway", until=until, since=since)
        made.key_file.chmod(0o600)

    return plant


def another_key(site: Site) -> None:
    made = Authority(site.pki, "other").certify("elsewhere", until=MONTHS)
    made.key_file.replace(site.pki / "gateway-key.pem")
    (site.pki / "gateway-key.pem").chmod(0o600)


def encrypted_key(site: Site) -> None:
    file = site.pki / "gateway-key.pem"
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def broken_chain(site: Site) -> None:
    stranger = Authority(site.pki, "stranger").own.file.read_bytes()
    file = site.pki / "gateway-cert.pem"
    file.write_bytes(file.read_bytes() + stranger)


def spent_authority(site: Site) -> None:
    authority = Authority(site.pki, "hospital")
    authority.own = authority._issue(
        "hospital", ca=True, since=-4 * DAY, until=-2 * DAY
    )
    authority.crl()


def strange_list(site: Site) -> None:
    Authority(site.pki, "stranger").crl().replace(site.pki / "hospital-crl.pem")


def changed_entry(file: str) -> Plant:
    def plant(site: Site) -> None:
        path = site.state.folder / file
        lines = path.read_bytes().replace(b'"CT1"', b'"CT2"', 1)
        path.write_bytes(lines)

    return plant


def without_line(site: Site) -> None:
    path = site.state.folder / "audit.jsonl"
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, *rest]))
    assert second


def without_end(site: Site) -> None:
    path = site.state.folder / "audit.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def other_keys(site: Site) -> None:
    """Put another site's keys there, and name them."""
    keys = site.state.folder / "keys"
    shutil.rmtree(keys)
    before = site.config.read_text("utf-8").partition('fingerprint = "')[2][:64]
    made = Keyring.make(keys, NOW)
    site.say(before.partition('"')[0], made.site("").fingerprint)


def changed_ring(site: Site) -> None:
    ring = site.state.folder / "keys" / "ring.json"
    values = json.loads(ring.read_bytes()) | {"least_suite": 2}
    ring.write_text(json.dumps(values))


def strange_site_file(site: Site) -> None:
    keys = site.state.folder / "keys"
    text = site.state.keys().site("stranger").to_text()
    (keys / "trusted" / "stranger.site").write_text(text)


def spooled(site: Site) -> Path:
    (file,) = (site.state.folder / "spool").glob("*.sealed")
    return file


def sql(name: str, statement: str) -> Plant:
    def plant(site: Site) -> None:
        path = site.state.folder / f"{name}.sqlite"
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    return plant


def older_grants(site: Site) -> None:
    sql("grants", "DELETE FROM entry WHERE number = 2")(site)


def ahead(site: Site) -> None:
    later = time.time() + 86400
    os.utime(site.state.folder / "audit.jsonl", (later, later))


def own_weights(site: Site) -> None:
    folder = site.folder / "weights"
    shutil.copytree(SHIPPED_WEIGHTS, folder)
    garbled(folder / "brain_mri-efficientnet-lite2.safetensors", 4096, 1)
    site.say('state = "state"\n', 'state = "state"\nweights = "weights"\n')


def sent_to(site: Site, port: int, told: str) -> None:
    """Have the destination be at another port, and something more be said of it."""
    (destination,) = site.case().config.destinations  # type: ignore[union-attr]
    site.say(f"port = {destination.port}\n", f"port = {port}\n{told}")


def file_as(name: str) -> Plant:
    def plant(site: Site) -> None:
        path = site.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(b"")

    return plant


def mode(name: str, bits: int) -> Plant:
    return lambda site: (site.folder / name).chmod(bits)


def gone(name: str) -> Plant:
    def plant(site: Site) -> None:
        path = site.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return plant


def text(name: str, content: str) -> Plant:
    return lambda site: (site.folder / name).write_text(content)


def said(old: str, new: str) -> Plant:
    return lambda site: site.say(old, new)


DAMAGE: dict[str, tuple[Plant, str, str]] = {
    "a configuration that is gone": (
        *(gone("node.toml"), "configuration"),
        "cannot be read: No such file",
    ),
    "a configuration that is no TOML": (
        *(text("node.toml", "[node"), "configuration"),
        "is not TOML",
    ),
    "a field that nobody knows": (
        *(said("ae_title", "ea_title"), "configuration"),
        "ea_title is not known",
    ),
    "a configuration that everybody may write": (
        *(mode("node.toml", 0o666), "configuration"),
        "everybody may write it",
    ),
    "a certificate that is gone": (
        *(gone("pki/gateway-cert.pem"), "certificates"),
        "gateway-cert.pem cannot be read",
    ),
    "a certificate that is none": (
        *(text("pki/gateway-cert.pem", "none"), "configuration"),
        "certificates cannot be used",
    ),
    "a certificate that has run out": (
        *(certified("hospital", since=-3 * DAY, until=-DAY), "certificates"),
        "gateway-cert.pem has run out",
    ),
    "a certificate that is not good yet": (
        *(certified("hospital", since=DAY), "certificates"),
        "is good from",
    ),
    "a key of another certificate": (
        *(another_key, "certificates"),
        "is not the key of the certificate",
    ),
    "a key that is encrypted": (
        *(encrypted_key, "certificates"),
        "gateway-key.pem is encrypted",
    ),
    "a key that everybody may read": (
        *(mode("pki/gateway-key.pem", 0o644), "certificates"),
        "everybody may read the key",
    ),
    "a chain that is broken": (
        *(broken_chain, "certificates"),
        "not signed by the one after it",
    ),
    "an authority that has run out": (
        *(spent_authority, "certificates"),
        "nothing that it has signed is believed",
    ),
    "a list of another authority": (
        *(strange_list, "certificates"),
        "signed by none of the authorities",
    ),
    "a state folder that is open": (
        *(mode("state", 0o755), "state"),
        "open to others than its owner",
    ),
    "a state folder that is a file": (*(file_as("state"), "state"), "is no folder"),
    "a state of a later version": (
        *(text("state/format.json", '{"format": 99}'), "state"),
        "format 99, and this version knows",
    ),
    "a format that cannot be read": (
        *(text("state/format.json", "?"), "state"),
        "does not say which format",
    ),
    "a backup that was put back by half": (
        *(text("state/format.json", '{"format": "unfinished"}'), "state"),
        "that was interrupted",
    ),
    "a spool that is open": (mode("state/spool", 0o750), "state", "spool is open"),
    "no keys": (gone("state/keys"), "keys", "there are no keys, and ledger.sqlite"),
    "a ring that is damaged": (
        *(text("state/keys/ring.json", "{"), "keys"),
        "ring.json is damaged",
    ),
    "a ring that was changed": (changed_ring, "keys", "ring.json was changed"),
    "a passphrase that is gone": (
        *(gone("state/keys/passphrase"), "keys"),
        "passphrase cannot be read",
    ),
    "another passphrase": (
        *(text("state/keys/passphrase", "another"), "keys"),
        "the passphrase does not open",
    ),
    "a passphrase that others read": (
        *(mode("state/keys/passphrase", 0o640), "keys"),
        "passphrase may be read by others",
    ),
    "a key that is gone": (
        *(gone("state/keys/epoch-1.key"), "keys"),
        "epoch-1.key cannot be read",
    ),
    "a key that was changed": (
        *(
            lambda site: garbled(site.state.folder / "keys" / "identity-1.key", 20, 9),
            "keys",
        ),
        "it was changed, or is another's",
    ),
    "other keys than were named": (
        *(lambda s: s.say('fingerprint = "', 'fingerprint = "00'), "keys"),
        "and the configuration wants 00",
    ),
    "a site file that a stranger put there": (
        *(strange_site_file, "keys"),
        "stranger.site was put there",
    ),
    "a queue that is damaged": (page("queue"), "databases", "queue.sqlite is damaged"),
    "a queue that is none": (
        *(text("state/queue.sqlite", "no database at all" * 99), "databases"),
        "queue.sqlite is damaged: file is not a database",
    ),
    "a ledger that is damaged": (
        *(page("ledger"), "databases"),
        "ledger.sqlite is damaged",
    ),
    "grants that are damaged": (
        page("grants"),
        "databases",
        "grants.sqlite is damaged",
    ),
    "a ledger that is gone": (
        *(
            lambda site: (
                sql("queue", "UPDATE job SET filtered = 'x', purpose = 'x'")(site),
                (site.state.folder / "ledger.sqlite").unlink(),
            ),
            "databases",
        ),
        "ledger.sqlite is gone",
    ),
    "an object that is gone": (
        *(lambda site: spooled(site).unlink(), "queue"),
        "1 files that are owed are not in the spool",
    ),
    "an object that is damaged": (
        *(lambda site: spooled(site).write_bytes(b"none"), "queue"),
        "1 files in the spool are damaged",
    ),
    "an object of other keys": (
        other_keys,
        "queue",
        "sealed with keys that are not here",
    ),
    "a hatch that is a file": (file_as("hatch"), "hatches", "hatch is no folder"),
    "an entry that was changed": (
        *(changed_entry("audit.jsonl"), "audit"),
        "audit.jsonl was changed",
    ),
    "an entry that was taken out": (without_line, "audit", "is gone"),
    "an end that was cut off": (without_end, "audit", "the end was cut off"),
    "no checkpoints": (
        *(gone("checkpoints"), "audit"),
        "where checkpoints are kept, is not there",
    ),
    "a grant that was changed": (
        *(sql("grants", "UPDATE entry SET body = x'7b7d' WHERE number = 2"), "grants"),
        "entry 2 of",
    ),
    "grants of an older day": (older_grants, "grants", "is an older copy"),
    "grants that are gone": (
        gone("state/grants.sqlite"),
        "grants",
        "is gone, and the keys",
    ),
    "a full disk": (
        *(said("least_free_mb = 1.0", "least_free_mb = 1e9"), "disk"),
        "nothing is taken in",
    ),
    "a clock that is slow": (ahead, "clock", "it is slow, or was fast"),
    "too few open files": (
        *(lambda site: site.add("\n[guard]\nmax_waiting = 2000000000\n"), "limits"),
        "and may need 2000000440",
    ),
    "an address of another machine": (
        *(said('bind = "127.0.0.1"', 'bind = "192.0.2.1"'), "ports"),
        "192.0.2.1",
    ),
    "a peer that is down": (lambda _: None, "peers", "cannot be reached"),
    "weights that were changed": (
        *(own_weights, "weights"),
        "is not the file that its manifest lists",
    ),
    "weights that are not there": (
        *(said('state = "state"\n', 'state = "state"\nweights = "none"\n'), "weights"),
        "manifest.toml cannot be read",
    ),
}


def test_a_sound_site_has_nothing_wrong(site: Site) -> None:
    before = site.as_it_is()
    assert site.wrong(*QUICK) == []
    assert site.wrong(*QUICK, is_full=True) == []
    assert site.as_it_is() == before


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(site: Site, name: str) -> None:
    plant, about, says = DAMAGE[name]
    plant(site)
    before = site.as_it_is()
    found = site.wrong(*QUICK, *([about] if about in SLOW else []))
    assert any(one.startswith(f"{about}: ") and says in one for one in found), found
    assert site.as_it_is() == before


def test_an_original_that_is_in_memory_only_is_not_missed(site: Site) -> None:
    sql("queue", "UPDATE job SET filtered = 'x', purpose = 'strip research'")(site)
    assert site.wrong("queue") == []
    sql("queue", "UPDATE job SET filtered = 'x', purpose = 'mark research'")(site)
    assert len(site.wrong("queue")) == 1


def test_what_was_put_aside_of_the_audit_is_looked_at_in_full_only(site: Site) -> None:
    first = min(site.state.folder.glob("audit-*.jsonl"))
    changed_entry(first.name)(site)
    assert site.wrong("audit") == []
    (found,) = site.wrong("audit", is_full=True)
    assert f"{first} was changed" in found


@pytest.mark.skipif(os.getuid() != 0, reason="left out: takes root, to be another")
def test_a_state_of_another_account_is_said_once(sound: Site) -> None:
    # Not below pytest's folder, which is root's alone.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        site = copied(sound, Path(folder) / "site")
        names = [
            name for name in QUICK if name not in {"configuration", "certificates"}
        ]
        site.wrong(*names)  # what is loaded late is loaded by root
        os.seteuid(65534)
        try:
            found = site.wrong(*names)
        finally:
            os.seteuid(0)
    assert [one.partition(":")[0] for one in found] == ["state", "hatches"]
    assert "belongs to user 0, and you may not look into it" in found[0]
    assert "is not yours to take from" in found[1]


def test_a_port_that_another_program_has_is_named(site: Site) -> None:
    (door,) = site.case().config.listeners  # type: ignore[union-attr]
    with listening_socket(Listening(port=door.port)):
        (found,) = site.wrong("ports")
    assert f"127.0.0.1:{door.port} cannot be listened on" in found


def test_a_node_that_runs_by_half_is_found(site: Site) -> None:
    with (site.state.folder / "node.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = site.as_it_is()
        found = site.wrong("node", "ports")
        assert site.as_it_is() == before
    assert "node: the node runs, and no worker does" in found
    assert any("nothing listens on 127.0.0.1" in one for one in found)


def test_a_node_that_is_not_ready_says_why(site: Site) -> None:
    settings = Metrics(port=a_free_port())
    site.add(f"\n[metrics]\nport = {settings.port}\n")
    with (site.state.folder / "node.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "node: it runs, and its [metrics] do not answer" in site.wrong("node")
        case = site.case()
        assert case.config is not None
        vitals = Vitals(case.config, site.state, lambda: case.now)
        told = threading.Event()
        serving = threading.Thread(
            target=serve_metrics, args=(settings, vitals, told.wait)
        )
        serving.start()
        try:
            await_that(lambda: reaches(settings.port), "the figures")
            found = site.wrong("node")
        finally:
            told.set()
            serving.join()
    assert "node: it is not ready: no receiver is running" in found


def reaches(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class AnHourAhead(BaseHTTPRequestHandler):
    """Answers everything, and has another time."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + 3600)

    def log_message(self, *_: object) -> None:
        pass


def test_the_time_of_a_server_is_held_against_ours(site: Site) -> None:
    shown = Authority(site.pki, "hospital").certify("server")
    site.say("crl = ", "# crl = ")  # that of the authority before
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.file, shown.key_file)
    with ThreadingHTTPServer(("127.0.0.1", 0), AnHourAhead) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            site.add(
                '\n[[destination]]\nname = "cloud"\nkind = "stow"\n'
                f'url = "https://127.0.0.1:{server.server_port}/"\n'
                'ca = "pki/hospital-cert.pem"\n'
            )
            (found,) = site.wrong("clock")
        finally:
            server.shutdown()
            serving.join()
    assert "s behind that of cloud" in found


def test_a_database_that_is_in_use_is_looked_at(site: Site) -> None:
    queue = site.state.queue()
    try:
        assert site.wrong("databases", "queue") == []
        page("ledger")(site)
        assert "ledger.sqlite is damaged" in site.wrong("databases")[0]
    finally:
        queue.close()


def test_a_list_that_has_run_out_refuses_everybody(site: Site) -> None:
    later = site.case()
    found = [one.says for one in papers(replace(later, now=later.now + 2 * DAY))]
    assert any("every caller is refused" in one for one in found)


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize(
    ("receiver", "told", "says"),
    [
        pytest.param(["--refuse"], "", "rejected", id="one that refuses"),
        pytest.param(
            ["--enable-tls", "{key}", "{certificate}", "--ignore-peer-cert"],
            'tls_ca = "pki/hospital-cert.pem"\n',
            "certificate",
            id="one whose certificate nobody knows",
        ),
    ],
)
def test_a_peer_that_takes_nothing_from_us(
    site: Site, tmp_path: Path, receiver: list[str], told: str, says: str
) -> None:
    stranger = Authority(tmp_path, "stranger").certify("receiver")
    options = [
        one.format(key=stranger.key_file, certificate=stranger.file) for one in receiver
    ]
    with storescp(tmp_path / "received", *options) as port:
        sent_to(site, port, told)
        (found,) = site.wrong("peers")
    assert "research" in found
    assert says in found


def test_a_peer_that_says_nothing_is_not_waited_for_long(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sent_to(site, silent.getsockname()[1], "timeout_s = 0.2\n")
        (found,) = site.wrong("peers")
    assert "research" in found
