"""Who may come in, by title, certificate and address; and that it is said why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.admission import Admission, Caller, Rejection
from dicom_node.certificates import Shown
from dicom_node.listening import Listening, Peer, UnknownPeers

A_KEY, B_KEY = "a" * 64, "b" * 64
PLAIN = Listening()
GUARDED = Listening(
    certificate=Path("c"), key=Path("k"), client_ca=Path("ca"), bind="192.0.2.1"
)
KNOWN = (
    Peer(ae_title="KEY", fingerprints=(A_KEY,)),
    Peer(ae_title="NAME", names=("a.example",)),
    Peer(ae_title="NETWORK", addresses=("10.0.0.0/8", "2001:db8::/32")),
)


def judged(
    listening: Listening,
    calling: str,
    shown: Shown | None = None,
    *,
    host: str = "10.1.2.3",
    called: str = "NODE",
) -> str:
    admission = Admission.of(listening, KNOWN, frozenset({"NODE"}))
    refusal = admission.judge(Caller(host, calling, called, shown))
    return "" if refusal is None else refusal.reason


def key(fingerprint: str = A_KEY, *names: str) -> Shown:
    return Shown(fingerprint, frozenset(names))


def test_on_a_plain_port_titles_without_rules_come_in() -> None:
    assert judged(PLAIN, "ANYBODY") == ""
    assert "certificate" in judged(PLAIN, "KEY")
    assert "certificate" in judged(PLAIN, "NAME")


@pytest.mark.parametrize(
    ("host", "is_in"),
    [
        ("10.255.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("2001:db8::5", True),
        ("2001:db8::5%eth0", True),
        ("11.0.0.1", False),
        ("::1", False),
    ],
)
def test_a_title_may_be_one_networks(host: str, is_in: bool) -> None:  # noqa: FBT001
    assert (judged(PLAIN, "NETWORK", host=host) == "") is is_in


def test_where_certificates_are_asked_for_a_title_needs_one() -> None:
    assert judged(GUARDED, "KEY", key()) == ""
    assert judged(GUARDED, "NAME", key(B_KEY, "b.example", "a.example")) == ""
    assert judged(GUARDED, "KEY", key(B_KEY))
    assert judged(GUARDED, "NAME", key(A_KEY))
    assert judged(GUARDED, "KEY", None)
    # A title that goes with no certificate proves nothing there.
    assert judged(GUARDED, "NETWORK", key(B_KEY))
    assert judged(GUARDED, "ANYBODY", key(B_KEY))


def test_unknown_titles_may_be_let_in_or_not_but_not_with_anothers_certificate() -> (
    None
):
    open_one = replace(GUARDED, unknown_peers=UnknownPeers.ACCEPT)
    assert judged(open_one, "ANYBODY", key(B_KEY)) == ""
    assert "another title" in judged(open_one, "ANYBODY", key(A_KEY))
    assert judged(Listening(unknown_peers=UnknownPeers.REFUSE), "ANYBODY")


def test_the_called_title_must_be_one_of_ours() -> None:
    assert judged(PLAIN, "ANYBODY", called="NODE") == ""
    for called in ("node", "NODE2", ""):
        assert judged(PLAIN, "ANYBODY", called=called)


def test_the_peer_hears_which_title_was_wrong() -> None:
    admission = Admission.of(PLAIN, KNOWN, frozenset({"NODE"}))
    for calling, called, rejection in (
        ("ANYBODY", "X", Rejection.CALLED_UNKNOWN),
        ("KEY", "NODE", Rejection.CALLING_UNKNOWN),
        ("A\\B", "NODE", Rejection.CALLING_UNKNOWN),
    ):
        refusal = admission.judge(Caller("10.0.0.1", calling, called, None))
        assert refusal is not None
        assert refusal.rejection is rejection
