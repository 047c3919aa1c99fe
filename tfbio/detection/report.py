"""Report: what is left out of a document of COCO's, and why, in a few lines of the log."""

import collections
import logging
from collections.abc import Sequence
from typing import Any

_LOG = logging.getLogger("tfbio")
_NAMED = 10  # of what is left out for one reason, so many are named


class Report:
    """Collects what is left out of a document, and logs it by reason.

    Args:
        where: What the document is called.

    Example:
        >>> report = Report("a.json")
        >>> report.add("a box without an area", "annotation 7 of image 1")
        >>> report.reasons()
        '1 with a box without an area'
    """

    def __init__(self, where: str):
        self._where = where
        self._left_out, self._clipped = collections.defaultdict(list), []

    def add(self, reason: str, what: Any) -> None:
        """Note something that is left out."""
        self._left_out[reason].append(what)

    def clip(self, what: Any) -> None:
        """Note a box that is cut at its image's border."""
        self._clipped.append(what)

    def reasons(self) -> str:
        """Return the counts by reason, as text."""
        return ", ".join(f"{len(what)} with {reason}" for reason, what in self._left_out.items())

    def log(self) -> None:
        """Log a line for each reason."""
        for reason, what in self._left_out.items():
            _LOG.warning(
                "%s: %s left out, with %s: %s",
                *(self._where, count(len(what), "annotation"), reason, join_first(what)),
            )
        if self._clipped:
            _LOG.warning(
                "%s: training cuts %s at the image's border: %s",
                *(
                    self._where,
                    count(len(self._clipped), "box", "boxes"),
                    join_first(self._clipped),
                ),
            )


def join_first(what: Sequence[str]) -> str:
    """Return the first ten of a list of texts as one.

    Args:
        what: Texts.

    Returns:
        A text.

    Example:
        >>> join_first(["a", "b"])
        'a; b'
    """
    more = len(what) - _NAMED
    return "; ".join(what[:_NAMED]) + (f"; and {more} more" if more > 0 else "")


def count(number: int, one: str, several: str | None = None) -> str:
    """Return a number with what it counts.

    Args:
        number: An integer.
        one: What one is called.
        several: What several are called, where that is not with an s.

    Returns:
        A text.

    Example:
        >>> count(1, "image"), count(2000, "image"), count(2, "box", "boxes")
        ('1 image', '2,000 images', '2 boxes')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
