"""What a configuration may say of listeners, peers and limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config import Config
from dicom_node.config_file import load
from dicom_node.errors import ConfigError
from dicom_node.listening import UnknownPeers

TLS = 'certificate = "c.pem"\nkey = "k.pem"\n'
PEER = '[[peer]]\nae_title = "CT1"\n'


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return load(path)


WRONG = {
    "open to the network without saying so": (
        '[node]\nbind = "0.0.0.0"\n',
        "open to the network without TLS",
    ),
    "a listener likewise": (
        '[[listener]]\nbind = "::"\n',
        "open to the network without TLS",
    ),
    "TLS for everybody without saying so": (
        f'[[listener]]\nbind = "0.0.0.0"\n{TLS}',
        "open to everybody",
    ),
    "half of TLS": ('[[listener]]\ncertificate = "c.pem"\n', "go together"),
    "an authority without TLS": ('[[listener]]\nclient_ca = "c.pem"\n', "are for TLS"),
    "a list without an authority": (
        f'[[listener]]\n{TLS}crl = "r.pem"\n',
        "of a client_ca",
    ),
    "TLS in plain text": (f"[[listener]]\n{TLS}plaintext = true\n", "plaintext"),
    "two ways to say where": (
        "[node]\nport = 104\n[[listener]]\nport = 105\n",
        r"bind and port are in \[node\]",
    ),
    "one port twice": ("[[listener]]\nport = 5\n" * 2, "listener .* is there twice"),
    "one peer twice": (PEER * 2, "peer 'CT1' is there twice"),
    "a peer without a title": ('[[peer]]\nnames = ["a"]\n', "ae_title"),
    "a title that is too long": (f'[[peer]]\nae_title = "{"X" * 17}"\n', "ae_title"),
    "a fingerprint that is none": (PEER + 'fingerprints = ["AB:CD"]\n', "fingerprint"),
    "a name with a wildcard": (PEER + 'names = ["*.example"]\n', "name"),
    "an address that is none": (PEER + 'addresses = ["10.0.0.1/8"]\n', "addresses"),
    "a peer that no listener can know": (
        f'[[listener]]\n{TLS}client_ca = "ca.pem"\n{PEER}',
        "neither fingerprints nor names",
    ),
    "no room": ("[guard]\nmax_waiting = 0\n", "max_waiting"),
    "no time": ("[guard]\npdu_s = 0.0\n", "not above 0"),
    "no receivers": ("[node]\nreceivers = 0\n", "receivers"),
    "an unknown answer": ('[[listener]]\nunknown_peers = "maybe"\n', "unknown_peers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, case: str) -> None:
    text, said = WRONG[case]
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, text)


def test_without_a_listener_there_is_the_nodes(tmp_path: Path) -> None:
    config = read(tmp_path, "[node]\nport = 104\n")
    (door,) = config.listeners
    assert (door.bind, door.port) == ("127.0.0.1", 104)
    assert not door.asks_for_certificates
    assert not door.refuses_unknown


def test_certificates_are_asked_for_where_an_authority_is_named(tmp_path: Path) -> None:
    text = f'[[listener]]\nbind = "0.0.0.0"\n{TLS}client_ca = "ca.pem"\n'
    (door,) = read(tmp_path, text).listeners
    assert door.asks_for_certificates
    assert door.refuses_unknown
    assert door.client_ca == tmp_path / "ca.pem"
    (door,) = read(tmp_path, text + 'unknown_peers = "accept"\n').listeners
    assert door.unknown_peers is UnknownPeers.ACCEPT
    assert not door.refuses_unknown


def test_a_port_may_be_for_everybody_where_it_says_so(tmp_path: Path) -> None:
    text = f'[[listener]]\nbind = "0.0.0.0"\n{TLS}unknown_peers = "accept"\n'
    (door,) = read(tmp_path, text).listeners
    assert not door.refuses_unknown


def test_the_node_answers_to_its_titles_and_those_of_its_routes(tmp_path: Path) -> None:
    text = """
[node]
ae_title = "NODE"
called_ae_titles = ["ALIAS"]
[[destination]]
name = "a"
ae_title = "A"
host = "localhost"
[[route]]
name = "r"
destination = "a"
action = "pass"
called_ae_titles = ["ROUTE"]
"""
    assert read(tmp_path, text).called_ae_titles == {"NODE", "ALIAS", "ROUTE"}
