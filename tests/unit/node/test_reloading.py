"""When a node looks at its configuration again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dicom_node.errors import ConfigError
from dicom_node.reloading import LOCK, Answer, Look, Watch, ask
from dicom_node.supervising import locked


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def watch(path: Path, clock: Clock) -> Watch:
    return Watch(path, path.parent, b"one", clock)


def test_a_change_is_believed_once_the_file_is_left_alone(
    watch: Watch, path: Path, clock: Clock
) -> None:
    assert watch.look() is None
    path.write_bytes(b"half of")
    assert watch.look() is None
    clock.now += 1.9
    path.write_bytes(b"half of it, and the rest")
    assert watch.look() is None
    clock.now += 1.9
    assert watch.look() is None
    clock.now += 0.2
    assert watch.look() == Look(b"half of it, and the rest", "")
    clock.now += 9
    assert watch.look() is None


def test_a_file_that_says_the_same_or_is_gone_is_no_change(
    watch: Watch, path: Path, clock: Clock
) -> None:
    path.write_bytes(b"one")
    watch.look()
    clock.now += 9
    assert watch.look() is None
    path.unlink()
    watch.look()
    clock.now += 9
    assert watch.look() is None
    watch.tell()
    assert watch.look() == Look(None, "")


def test_what_changed_before_anybody_looked_is_seen(path: Path, clock: Clock) -> None:
    path.write_bytes(b"two")
    assert Watch(path, path.parent, b"one", clock).look() == Look(b"two", "")


def test_who_asks_is_answered(watch: Watch, path: Path) -> None:
    said = Answer(is_taken=False, says="no", hint="try again")
    asked: list[Answer] = []
    held = locked(path.parent / LOCK)
    assert held is not None
    asking = threading.Thread(target=lambda: asked.append(ask(path.parent)))
    with held:
        asking.start()
        while (seen := watch.look()) is None:
            pass
        assert seen.content == b"one"
        watch.answer(seen.token, said)
        asking.join()
    assert asked == [said]


def test_all_who_ask_at_once_are_answered(watch: Watch, path: Path) -> None:
    asked: list[Answer] = []
    held = locked(path.parent / LOCK)
    assert held is not None
    asking = [
        threading.Thread(target=lambda: asked.append(ask(path.parent)))
        for _ in range(3)
    ]
    with held:
        for one in asking:
            one.start()
        while len(list(path.parent.glob("*.ask"))) < len(asking):
            pass
        for note in path.parent.glob("*.ask"):
            note.chmod(0)  # as if it were somebody else's
        tokens: set[str] = set()
        while len(tokens) < len(asking):
            if (seen := watch.look()) is not None:
                tokens.add(seen.token)
                watch.answer(seen.token, Answer(is_taken=True, says=seen.token))
        for one in asking:
            one.join()
    assert {answer.says for answer in asked} == tokens
    assert [f.name for f in path.parent.glob("reload*")] == []


def test_who_asks_leaves_nothing_where_no_node_ever_ran(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no node runs"):
        ask(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_asked_where_no_node_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no node runs"):
        ask(tmp_path)
