"""Ways of release that a route chooses: insecure, and direct; and a receiving proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.demo.loopback import (
    MARKING,
    STRIPPING,
    Loopback,
    await_that,
    free_ports,
)
from dicom_node.demo.selftest import send
from dicom_node.queue.job import JobState
from dicom_node.state import State
from tests.conftest import certificate_of, miadmark, opened

MORE = """
[[route]]
name = "insecure"
destination = "research"
action = "strip"
insecure = true
called_ae_titles = ["INSECURE"]

[[route]]
name = "not switched"
destination = "research"
action = "strip"
called_ae_titles = ["NOTSWITCHED"]

[[route]]
name = "direct"
destination = "research"
action = "mark"
not_images = "pass"
direct = ["PARTNER"]
called_ae_titles = ["DIRECTLY"]
"""
OTHER = {"SUDO_USER": "somebody-else"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Loopback]:
    with Loopback(tmp_path / "site", profile="fast", more=MORE) as loopback:
        yield loopback


def granted(site: Loopback, *terms: object) -> None:
    state = ("--state", site.folder / "state")
    given = miadmark("grant", "add", *terms, *state)
    assert given.returncode == 0, given.stderr
    number = given.stdout.split()[1]
    assert miadmark("grant", "approve", number, *state, **OTHER).returncode == 0


def events(site: Loopback) -> list[str]:
    state = State(site.folder / "state")
    return [str(entry["event"]) for entry in state.audit(state.keys()).entries()]


def held_because(site: Loopback, words: str) -> bool:
    def reasons() -> list[str]:
        queue = State(site.folder / "state").queue()
        try:
            return [job.reason for job in queue.held()]
        finally:
            queue.close()

    await_that(lambda: bool(reasons()), "a held job")
    return any(words in reason for reason in reasons())


def test_an_address_gets_originals_only_by_a_route_that_says_insecure(
    site: Loopback, images: Path
) -> None:
    send(site, [images / "ct.dcm"], MARKING)
    site.await_sent(1)
    (marked,) = site.received("research")
    address = f"127.0.0.1:{site.ports['research']}"
    granted(site, "--ae-title", "RESEARCH", "--insecure-address", address)
    send(site, [marked], "NOTSWITCHED")
    assert held_because(site, "not switched to insecure")
    assert "insecure release" not in events(site)
    assert "refused" in events(site)
    send(site, [marked], "INSECURE")
    site.await_sent(2)
    original = opened(images / "ct.dcm").file.dataset
    await_that(
        lambda: original in {opened(f).file.dataset for f in site.received("research")},
        "the original",
    )
    assert events(site).count("insecure release") == 1


def test_nothing_is_released_that_cannot_be_written_down(
    site: Loopback, images: Path
) -> None:
    send(site, [images / "ct.dcm"], MARKING)
    site.await_sent(1)
    audit = site.folder / "state" / "audit.jsonl"
    audit.rename(audit.with_name("elsewhere"))
    audit.mkdir()
    send(site, site.received("research"), STRIPPING)
    log = site.folder / "node.log"
    await_that(
        lambda: "audit.jsonl cannot be" in log.read_text("utf-8"), "a failed try"
    )
    assert site.received("archive") == []
    audit.rmdir()
    site.await_sent(2)
    assert len(site.received("archive")) == 1
    assert events(site).count("released") >= 1


def test_a_direct_receiver_opens_alone_and_a_revoked_one_no_new_object(
    site: Loopback, images: Path, tmp_path: Path
) -> None:
    ours, theirs = ("--state", site.folder / "state"), ("--state", tmp_path / "b")
    miadmark("keys", "export-recipient", "--out", tmp_path / "b.site", *theirs)
    miadmark("keys", "export-recipient", "--out", tmp_path / "a.site", *ours)
    miadmark("keys", "trust", tmp_path / "a.site", *theirs)
    pem = certificate_of(tmp_path, "partner")
    granted(
        site,
        *("--ae-title", "PARTNER", "--certificate", pem, "--direct"),
        *("--site", tmp_path / "b.site"),
    )
    send(site, [images / "ct.dcm"], "DIRECTLY")
    site.await_sent(1)
    (marked,) = site.received("research")
    told = json.loads(miadmark("inspect", "--json", marked).stdout)
    assert [who.split()[0] for who in told["opens_for"]] == ["epoch", "recipient"]
    back = ("restore", marked, "--out", tmp_path / "back", *theirs)
    assert miadmark(*back).returncode == 0
    restored = opened(tmp_path / "back" / marked.name).file.dataset
    assert restored == opened(images / "ct.dcm").file.dataset
    assert miadmark("grant", "revoke", 2, *ours).returncode == 1
    for grant in ("1", "3"):
        miadmark("grant", "revoke", grant, *ours)
    send(site, [images / "chest-xray-normal.dcm"], "DIRECTLY")
    assert held_because(site, "it was revoked")
    assert len(site.received("research")) == 1
    again = ("restore", marked, "--out", tmp_path / "again", *theirs)
    assert miadmark(*again).returncode == 0  # for ever, as the README says


def test_a_receiving_node_strips_what_was_sealed_to_its_site(
    site: Loopback, images: Path, tmp_path: Path
) -> None:
    ours = ("--state", site.folder / "state")
    with Loopback(tmp_path / "proxy") as proxy:
        theirs = ("--state", proxy.folder / "state")
        miadmark("keys", "export-recipient", "--out", tmp_path / "b.site", *theirs)
        miadmark("keys", "export-recipient", "--out", tmp_path / "a.site", *ours)
        miadmark("keys", "trust", tmp_path / "a.site", *theirs)
        miadmark("keys", "add-recipient", tmp_path / "b.site", *ours)
        send(site, [images / "ct.dcm"], MARKING)
        site.await_sent(1)
        send(proxy, site.received("research"), STRIPPING)
        proxy.await_sent(1)
        (restored,) = proxy.received("archive")
        original = opened(images / "ct.dcm").file.dataset
        assert opened(restored).file.dataset == original
        assert proxy.counts()[JobState.HELD] == 0


def test_a_receiving_node_asks_the_desk_each_time(images: Path, tmp_path: Path) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    for name in ("desk", "partner"):
        certificate_of(certificates, name)
    (port,) = free_ports(1)
    desk = f"""
[release]
certificate = "{certificates}/desk-cert.pem"
key = "{certificates}/desk-key.pem"
client_ca = "{certificates}/partner-cert.pem"
port = {port}
"""
    with Loopback(tmp_path / "site", profile="fast", more=desk) as site:
        ours = State(site.folder / "state").keys().site("")
        asks = f"""
[[desk]]
address = "https://127.0.0.1:{port}"
gateway = "{ours.fingerprint}"
ca = "{certificates}/desk-cert.pem"
certificate = "{certificates}/partner-cert.pem"
key = "{certificates}/partner-key.pem"
"""
        with Loopback(tmp_path / "proxy", more=asks) as proxy:
            theirs = ("--state", proxy.folder / "state")
            (tmp_path / "a.site").write_text(ours.to_text())
            miadmark("keys", "export-recipient", "--out", tmp_path / "b.site", *theirs)
            miadmark("keys", "trust", tmp_path / "a.site", *theirs)
            pem = certificates / "partner-cert.pem"
            granted(
                site,
                *("--ae-title", "MIADMARK", "--certificate", pem),
                *("--site", tmp_path / "b.site"),
            )
            send(site, [images / "ct.dcm", images / "chest-xray-normal.dcm"], MARKING)
            site.await_sent(2)
            first, second = site.received("research")
            send(proxy, [first], STRIPPING)
            proxy.await_sent(1)
            (restored,) = proxy.received("archive")
            originals = {
                opened(images / name).file.dataset
                for name in ("ct.dcm", "chest-xray-normal.dcm")
            }
            assert opened(restored).file.dataset in originals
            state = ("--state", site.folder / "state")
            for grant in ("1", "3"):
                miadmark("grant", "revoke", grant, *state)
            send(proxy, [second], STRIPPING)
            assert held_because(proxy, "refuses")
            assert len(proxy.received("archive")) == 1
            assert {"released", "refused"} <= set(events(site))
