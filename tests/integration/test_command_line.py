"""The installed command: what it writes, what it says, how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.conftest import miadmark, opened


@pytest.fixture(scope="module")
def protected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder protected once, with a file in it that is no DICOM."""
    work = tmp_path_factory.mktemp("cli")
    shutil.copytree(images, work / "in" / "study")
    (work / "in" / "notes.txt").write_text("no DICOM")
    done = miadmark(
        *("protect", work / "in", "--out", work / "out", "--state", work / "s"),
        *("--json", "--profile", "fast", "--listing"),
    )
    (work / "protect.json").write_text(done.stdout)
    (work / "protect.err").write_text(done.stderr)
    (work / "protect.code").write_text(str(done.returncode))
    return work


def test_every_file_is_accounted_for(protected: Path) -> None:
    told = [
        json.loads(x) for x in (protected / "protect.json").read_text().splitlines()
    ]
    told = [t for t in told if t["status"] != "listed"]
    status = {Path(t["in"]).name: t["status"] for t in told}
    assert status.pop("notes.txt") == "failed"
    assert status.pop("report-sr.dcm") == "referred"
    assert set(status.values()) == {"marked"}
    assert all(t["psnr_db"] >= 35 for t in told if t["status"] == "marked")
    assert all(t["leaks"] == [] for t in told if t["status"] == "marked")


def test_a_failed_file_fails_the_command_and_leaves_nothing(protected: Path) -> None:
    assert (protected / "protect.code").read_text() == "1"
    error = (protected / "protect.err").read_text()
    assert "notes.txt: not a DICOM file" in error
    assert "Traceback" not in error
    assert not (protected / "out" / "notes.txt").exists()
    assert not list((protected / "out").rglob("*.part"))


@pytest.fixture
def others(images: Path, tmp_path: Path) -> Path:
    """A report, and a picture that is flat."""
    (tmp_path / "in").mkdir()
    shutil.copy(images / "report-sr.dcm", tmp_path / "in")
    flat = dcmread(images / "ct.dcm")
    flat.PixelData = bytes(len(flat.PixelData))
    flat.save_as(tmp_path / "in" / "flat.dcm")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "report", "flat", "code"),
    [
        pytest.param((), "referred", "failed", 1, id="by default"),
        pytest.param(
            ("--others", "drop", "--other-pixels", "pass"),
            *("dropped", "referred", 0),
            id="drop and pass",
        ),
        pytest.param(
            ("--hold-others", "--other-pixels", "drop"),
            *("failed", "dropped", 1),
            id="hold, by its old name, and drop",
        ),
    ],
)
def test_what_is_not_marked_goes_as_the_options_say(
    others: Path, options: tuple[str, ...], report: str, flat: str, code: int
) -> None:
    done = miadmark(
        *("protect", others / "in", "--out", others / "out", "--state", others / "s"),
        *("--json", *options),
    )
    told = {Path(t["in"]).stem: t for t in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == code
    for name, status in (("report-sr", report), ("flat", flat)):
        assert told[name]["status"] == status
        written = others / "out" / f"{name}.dcm"
        assert written.exists() == (status == "referred")
    audit = miadmark("audit", "--state", others / "s", "--json").stdout
    for status, event in (("referred", "passed unmarked"), ("dropped", "dropped")):
        assert (event in audit) == (status in {report, flat})


def test_what_was_marked_is_listed_a_study(protected: Path) -> None:
    studies: dict[str, set[str]] = {}
    for path in (protected / "out" / "study").glob("*.dcm"):
        one = dcmread(path)
        if "PixelData" in one:
            studies.setdefault(one.StudyInstanceUID, set()).add(one.SOPInstanceUID)
    documents = [dcmread(p) for p in (protected / "out").glob("listing-*.dcm")]
    listed = {
        document.StudyInstanceUID: {
            reference.ReferencedSOPInstanceUID
            for evidence in document.CurrentRequestedProcedureEvidenceSequence
            for series in evidence.ReferencedSeriesSequence
            for reference in series.ReferencedSOPSequence
        }
        for document in documents
    }
    assert len(documents) == len(studies)
    assert listed == studies


def test_restore_gives_the_originals(protected: Path, images: Path) -> None:
    out = protected / "restored"
    done = miadmark(
        "restore", protected / "out", "--out", out, "--state", protected / "s"
    )
    assert (done.returncode, done.stderr) == (0, "")
    for original in images.glob("*.dcm"):
        restored = opened(out / "study" / original.name)
        assert restored.file.dataset == opened(original).file.dataset


def test_another_site_opens_it_only_as_a_recipient(
    protected: Path, images: Path, tmp_path: Path
) -> None:
    one, ours, theirs = images / "ct.dcm", protected / "s", tmp_path / "b"
    site_a, site_b = tmp_path / "a.site", tmp_path / "b.site"
    assert miadmark("keys", "init", "--state", theirs).returncode == 0
    miadmark("keys", "export-recipient", "--out", site_b, "--state", theirs)
    miadmark("keys", "export-recipient", "--out", site_a, "--state", ours)
    fast = ("protect", one, "--profile", "fast", "--state", ours)
    miadmark(*fast, "--out", tmp_path / "1")
    miadmark(*fast, "--out", tmp_path / "2", "--recipient", site_b)

    def opens(which: str) -> str:
        target = tmp_path / f"r{which}"
        done = miadmark(
            "restore", tmp_path / which / "ct.dcm", "--out", target, "--state", theirs
        )
        assert done.returncode == (0 if target.exists() else 1)
        return done.stderr

    assert "not trusted here" in opens("2")
    miadmark("keys", "trust", site_a, "--state", theirs)
    assert "not sealed to this identity" in opens("1")
    assert opens("2") == ""
    restored = opened(tmp_path / "r2" / "ct.dcm")
    assert restored.file.dataset == opened(one).file.dataset


def test_a_seed_in_a_file_opens_what_is_sealed_to_it(
    protected: Path, images: Path, tmp_path: Path
) -> None:
    one, ours = images / "ct.dcm", protected / "s"
    seed, site, alone = tmp_path / "seed", tmp_path / "b.site", tmp_path / "c"
    new = ("keys", "new-identity", "--out", seed, "--site", site)
    assert miadmark(*new, "--state", alone).returncode == 0
    miadmark("keys", "export-recipient", "--out", tmp_path / "a.site", "--state", ours)
    miadmark("keys", "trust", tmp_path / "a.site", "--state", alone)
    miadmark(
        *("protect", one, "--profile", "fast", "--state", ours),
        *("--out", tmp_path / "1", "--recipient", site),
    )
    back = ("restore", tmp_path / "1" / "ct.dcm", "--state", alone)
    assert miadmark(*back, "--out", tmp_path / "2").returncode == 1
    done = miadmark(*back, "--out", tmp_path / "3", "--identity", seed)
    assert (done.returncode, done.stderr) == (0, "")
    restored = opened(tmp_path / "3" / "ct.dcm")
    assert restored.file.dataset == opened(one).file.dataset


def test_a_visible_mark_is_said_to_be_one_and_comes_off(
    images: Path, tmp_path: Path
) -> None:
    original, state = images / "brain-mr-glioma.dcm", tmp_path / "s"
    done = miadmark(
        *("protect", original, "--out", tmp_path / "marked", "--state", state),
        *("--json", "--profile", "logo"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["status"] == "marked"
    assert told["psnr_db"] < 30
    path = tmp_path / "marked" / original.name
    marked, before = dcmread(path), dcmread(original)
    assert "visible" in marked.DerivationDescription
    assert marked.DerivationCodeSequence[-1].CodeValue == "LOGO"
    assert marked.get("BurnedInAnnotation") == before.get("BurnedInAnnotation")
    covered = (marked.pixel_array != before.pixel_array).mean()
    assert 0.01 < covered < 0.5
    done = miadmark("restore", path, "--out", tmp_path / "back", "--state", state)
    assert (done.returncode, done.stderr) == (0, "")
    restored = opened(tmp_path / "back" / original.name)
    assert restored.file.dataset == opened(original).file.dataset


def test_an_input_is_never_overwritten(images: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ct.dcm"
    shutil.copy(images / "ct.dcm", copy)
    done = miadmark("protect", copy, "--out", tmp_path, "--state", tmp_path / "s")
    assert done.returncode == 1
    assert "would be overwritten" in done.stderr
    assert copy.read_bytes() == (images / "ct.dcm").read_bytes()


def test_inspect_tells_what_is_public_and_no_more(protected: Path) -> None:
    path = protected / "out" / "study" / "ct.dcm"
    done = miadmark("inspect", "--json", path)
    facts = json.loads(done.stdout)
    assert facts["marked"] is True
    assert [who.split()[0] for who in facts["opens_for"]] == ["epoch"]
    assert facts["suite"].startswith("02 ")
    original = dcmread(protected / "in" / "study" / "ct.dcm")
    assert str(original.SOPInstanceUID) not in done.stdout
    assert str(original.PatientName) not in done.stdout


def test_keys_are_not_made_twice(protected: Path) -> None:
    done = miadmark("keys", "init", "--state", protected / "s")
    assert done.returncode == 1
    assert "holds keys already" in done.stderr


def test_misuse_ends_with_two() -> None:
    assert miadmark("protect").returncode == 2


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--engine", "strongest"),
        ("--set", "knees"),
        ("--attacker", "own-pairs"),
        ("--victim", "resnet152"),
    ],
)
def test_an_evaluation_of_what_there_is_not_says_what_there_is(
    option: str, name: str, tmp_path: Path
) -> None:
    done = miadmark(
        *("evaluate", "--data", tmp_path, "--out", tmp_path / "out", option, name)
    )
    assert done.returncode == 1
    assert name in done.stderr
    assert "Known" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
