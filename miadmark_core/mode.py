"""What a mark leads classifiers to. Needs no torch: configurations name it as well."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Whom a mark leaves what.

    *Error* pushes an image off every answer that a classifier held possible: the truth
    is most often among these. *Information* pushes it to a class drawn by lot from all
    of them, the right one included, so that answer and truth have nothing to do with
    one another: of two classes, a classifier that always errs is a perfect one read
    upside down.
    """

    AUTO = "auto"
    """``information`` where a classifier tells two classes apart, else ``error``."""
    ERROR = "error"
    INFORMATION = "information"

    def of(self, classes: int) -> Mode:
        """Return the mode against a classifier of so many classes; never ``AUTO``."""
        if self is not Mode.AUTO:
            return self
        return Mode.INFORMATION if classes == 2 else Mode.ERROR
