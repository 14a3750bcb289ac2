"""Code is told apart by what it does."""

from pathlib import Path

from miadmark_core.evaluation.sources import code_digest


def test_comments_and_docstrings_do_not_count_and_constants_do(tmp_path: Path) -> None:
    file = tmp_path / "a.py"

    def digest_of(text: str) -> str:
        file.write_text(text)
        return code_digest([tmp_path])

    first = digest_of('"""Says."""\n\nSTEP = 4\n\n\ndef f():\n    return STEP\n')
    told = digest_of("STEP = 4  # why\n\ndef f():\n    '''Tell.'''\n    return STEP\n")
    assert told == first
    assert digest_of("STEP = 5\n\n\ndef f():\n    return STEP\n") != first
