"""An installation without torch, and all else that only marking needs, strips."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import dicom_node
from dicom_node.demo.loopback import STRIPPING, Loopback
from dicom_node.demo.selftest import dataset, send
from tests.conftest import miadmark

MARKING = ("torch", "highdicom", "skimage", "safetensors", "scipy", "PIL")
"""What only the extra ``mark`` brings."""

_WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError("left out: " + name, name=name)

sys.meta_path.insert(0, Without())
"""


@pytest.fixture
def without(tmp_path: Path) -> str:
    """A PYTHONPATH by which a Python, and what it starts, has none of them."""
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_WITHOUT.format(names=MARKING))
    return f"{folder}{os.pathsep}{Path(dicom_node.__file__).parent.parent}"


@pytest.fixture
def marked(tmp_path: Path, images: Path) -> Path:
    """An object that the site of the node below has marked."""
    done = miadmark(
        *("protect", images / "ct.dcm", "--out", tmp_path / "marked"),
        *("--state", tmp_path / "node" / "state", "--profile", "fast"),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "marked" / "ct.dcm"


def test_they_are_really_left_out(without: str) -> None:
    for name in MARKING:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            env=os.environ | {"PYTHONPATH": without},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"left out: {name}" in done.stderr


def test_a_node_strips_and_the_commands_restore_and_inspect(
    tmp_path: Path,
    marked: Path,
    images: Path,
    without: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = images / "ct.dcm"
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", without)
        with Loopback(tmp_path / "node") as node:
            send(node, [marked], STRIPPING)
            node.await_sent(1, within=timedelta(minutes=2))
            (restored,) = node.received("archive")
    assert dataset(restored) == dataset(original)
    found = miadmark("inspect", marked, PYTHONPATH=without)
    assert found.returncode == 0, found.stderr
    out, state = tmp_path / "out", tmp_path / "node" / "state"
    found = miadmark(
        *("restore", marked, "--out", out, "--state", state), PYTHONPATH=without
    )
    assert found.returncode == 0, found.stderr
    assert dataset(out / "ct.dcm") == dataset(original)


def test_marking_says_what_is_missing(
    tmp_path: Path, images: Path, without: str
) -> None:
    done = miadmark(
        *("protect", images / "ct.dcm", "--out", tmp_path / "out"),
        *("--state", tmp_path / "state"),
        PYTHONPATH=without,
    )
    assert done.returncode == 1
    assert "pip install 'miadmark[mark]'" in done.stderr
    done = miadmark("selftest", PYTHONPATH=without)
    assert done.returncode == 1
    assert "the self-test marks, and needs torch" in done.stderr
