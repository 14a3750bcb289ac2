"""A node that runs goes on running, whatever its file comes to say."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from dicom_node import changing
from dicom_node.changing import Changing
from dicom_node.config_file import read
from dicom_node.reloading import Answer, Look
from dicom_node.transition import Transition, is_on

NODE = b'[node]\nae_title = "A"\n'


class Noted:
    """Stands for the audit, and for who asks."""

    def __init__(self, content: bytes) -> None:
        self.content, self.facts, self.answers = content, list[Any](), list[Answer]()

    def add(self, _: object, **facts: object) -> None:
        self.facts.append(facts)

    def look(self) -> Look:
        return Look(self.content, "token")

    def answer(self, _: str, answer: Answer) -> None:
        self.answers.append(answer)


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Changing, Noted]:
    nothing, noted = cast("Any", None), Noted(b"")
    made = Changing(
        tmp_path / "node.toml",
        crew=nothing,
        doors=nothing,
        audit=cast("Any", noted),
        pseudonyms=b"",
        options=(),
        keys=-1,
        stopping=threading.Event(),
    )
    config = read(NODE, tmp_path / "node.toml")
    made._rules = changing._Rules(config, NODE, (), ())
    return made, noted


@pytest.mark.parametrize(
    "added",
    [b'[web]\naddress = "https://[gateway.example"\n', b"a = " + b"[" * 5000],
)
def test_a_slip_in_the_file_is_refused(
    begun: tuple[Changing, Noted], added: bytes
) -> None:
    made, noted = begun
    noted.content = NODE + added
    made.look(cast("Any", noted))
    assert not noted.answers[0].is_taken
    assert "node.toml" in noted.answers[0].says
    assert noted.facts[0]["did"] == "refused"


def test_what_nobody_foresaw_is_refused_too(
    begun: tuple[Changing, Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("Doe^Jane")

    made, noted = begun
    noted.content = NODE + b"[guard]\n"
    monkeypatch.setattr(changing, "read", fails)
    made.look(cast("Any", noted))
    assert not noted.answers[0].is_taken
    assert "ZeroDivisionError" in noted.answers[0].says
    assert "Doe" not in noted.answers[0].says
    assert noted.facts[0]["did"] == "refused"


def test_a_transition_is_seen_by_all_and_ends_with_its_holder(tmp_path: Path) -> None:
    transition = Transition(tmp_path)
    assert not is_on(tmp_path)
    for _ in range(2):
        transition.begin()
        transition.begin()
        assert is_on(tmp_path)
        transition.end()
        transition.end()
        assert not is_on(tmp_path)
