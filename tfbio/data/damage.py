"""Damage: the images of an epoch that cannot be read, counted, named, and stopped at a limit."""

import logging

import numpy as np

_LOG = logging.getLogger("tfbio")
TROUBLE = " cannot be read as an image."
"""What follows a damaged image's name in messages."""


class Damage:
    """Counts the damaged images that a pass over a split meets.

    Args:
        name: A function from an example's index to what it is called.
        size: The number of images in a pass.
        share: How many of them may be damaged. One always may, unless it is 0.

    Example:
        >>> damage = Damage("image {}".format, size=5000, share=0.001)
        >>> for row in (7, 7, 9, 12, 1, 3):
        ...     damage.add([row])
        >>> damage.add([4])
        Traceback (most recent call last):
        ValueError: --max_corrupt=0.001 admits 5 damaged images of 5,000 in a pass. Received: 6, ...
    """

    def __init__(self, name, size, share):
        self._name, self._size, self._share = name, size, share
        self._limit = max(1, int(share * size)) if share else 0
        self._rows = set()

    def add(self, rows):
        """Note damaged images by their index; each one counts once.

        Raises:
            ValueError: If there are more than may be.
        """
        for row in map(int, np.asarray(rows)):
            if row in self._rows:
                continue
            self._rows.add(row)
            count = len(self._rows)
            _LOG.warning(
                "--data_dir: %s%s It is left out; %d so far", self._name(row), TROUBLE, count
            )
            if count > self._limit:
                raise ValueError(
                    f"--max_corrupt={self._share:g} admits {self._limit} damaged images of "
                    f"{self._size:,} in a pass. Received: {count}, the last of which is "
                    f"{self._name(row)}."
                )
