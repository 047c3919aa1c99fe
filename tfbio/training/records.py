"""Records: what a training writes down as it goes, for spreadsheets and for TensorBoard."""

from __future__ import annotations

import csv
import io
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfbio.training.checkpoints import write

if TYPE_CHECKING:
    import numpy as np

_EVENTS = "events.out.tfevents.*"
REMEDY = "Put back the file as it was written, or give another `workdir`."
"""What to do about a damaged file of a run."""


class Records:
    """metrics.csv and TensorBoard events of one run, without overlap or gap across resumptions.

    Curves that the events should have and lack, because a file of them was damaged, are written
    again from metrics.csv.

    Args:
        workdir: The run's folder.
        columns: The columns of metrics.csv after "step" and "epoch".
        step: The last step of what is kept: what was written down for later ones is removed, and
            comes again. None at a run's start.
        lines: How many there must be to keep, or None where that is not known.
        tell: Called with a line of text if curves were lost.

    Attributes:
        lines: The number of lines of metrics.csv.

    Raises:
        ValueError: If there are not the lines that there must be, or one is damaged.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> records = Records(folder, ["loss"], step=None)
        >>> records.add(1, 1, {"loss": 0.5}); records.add(2, 1, {"loss": 0.4}); records.close()
        >>> records = Records(folder, ["loss"], step=1)
        >>> records.add(2, 1, {"loss": 0.25}); records.close()
        >>> read(folder)
        [{'step': 1, 'epoch': 1, 'loss': 0.5}, {'step': 2, 'epoch': 1, 'loss': 0.25}]
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        columns: Sequence[str],
        step: int | None,
        lines: int | None = None,
        tell: Callable[[str], Any] = print,
    ):
        self._path = pathlib.Path(workdir, "metrics.csv")
        self._columns = ["step", "epoch", *columns]
        last = -1 if step is None else step
        rows = [row for row in _rows(self._path) if int(row["step"]) <= last]
        if last > 0 and not rows:
            raise ValueError(
                f"{self._path} is missing or damaged: it has no line up to step {last}, from which "
                f"the run would go on. {REMEDY}"
            )
        if lines not in (None, len(rows)):
            raise ValueError(
                f"{self._path} is damaged: it has {len(rows)} lines up to step {last}, of {lines} "
                f"that were written. {REMEDY}"
            )
        self.lines = len(rows)
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write(self._path, text.getvalue().encode())
        lost = self._keep_events(pathlib.Path(workdir), list(map(_numbers, rows)), last)
        self._file = self._path.open("a", newline="")
        self._table = csv.DictWriter(self._file, self._columns, lineterminator="\n")
        self._writer = tf.summary.create_file_writer(str(workdir))
        for row in lost:
            self._plot(row["step"], _curves(row))
        if lost:
            tell(
                f"TensorBoard's events in {workdir} are damaged from step {lost[0]['step']} on: "
                "the curves were written again from metrics.csv, without the images per second of "
                f"these steps, up to step {lost[-1]['step']}."
            )

    def _keep_events(self, folder, rows, last):
        """Keep the events up to a step, or to the first whose curves are not whole.

        Returns:
            The rows from the first on whose curves are not whole.
        """
        events = _events(folder)
        there = {(event.step, tag) for event in events for tag in _tags(event.summary)}
        whole = itertools.takewhile(
            lambda row: all((row["step"], name) in there for name in _curves(row)), rows
        )
        lost = rows[len(list(whole)) :]
        end = lost[0]["step"] if lost else last + 1
        kept = [event for event in events if event.step < end]
        self._described = {tag for event in kept for tag in _tags(event.summary)}
        self._shown = {(event.step, tag) for event in kept for tag in _tags(event.summary)}
        _replace_events(folder, kept)
        return lost

    def add(
        self,
        step: int,
        epoch: int,
        values: Mapping[str, Any],
        also: Mapping[str, float] | None = None,
    ) -> None:
        """Write one line of metrics.csv, and all values to TensorBoard.

        Args:
            step: The number of steps done; greater than the last line's.
            epoch: The epoch that the step belongs to, from 1.
            values: A dict from column to number; columns left out stay empty.
            also: Further values for TensorBoard alone, such as those that depend on the clock.
        """
        self._table.writerow({"step": step, "epoch": epoch, **values})
        self._file.flush()
        os.fsync(self._file.fileno())  # before a checkpoint counts on it
        self.lines += 1
        self._plot(step, {**values, **(also or {})})

    def _plot(self, step, values):
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def show(self, step: int, name: str, image: np.ndarray) -> None:
        """Show an image in TensorBoard, unless it was shown before.

        Args:
            step: The number of steps done.
            name: What it is called.
            image: An array, uint8 (height, width, 3).
        """
        if (step, name) in self._shown:
            return
        with self._writer.as_default(step):
            tf.summary.image(name, image[None])

    def describe(self, *summaries: Any) -> None:
        """Write summaries that are not of any step, such as the run's options, where they lack.

        Args:
            *summaries: Serialized `Summary` protocol buffers.
        """
        with self._writer.as_default(0):
            for summary in summaries:
                if not self._described.issuperset(_tags(tf.compat.v1.Summary.FromString(summary))):
                    tf.summary.experimental.write_raw_pb(summary)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._writer.close()


class NoRecords:
    """What a worker that is not the chief has for `Records`: nothing is written twice."""

    lines: int | None = None

    def add(
        self,
        step: int,
        epoch: int,
        values: Mapping[str, Any],
        also: Mapping[str, float] | None = None,
    ) -> None:
        """Do nothing."""

    def show(self, step: int, name: str, image: np.ndarray) -> None:
        """Do nothing."""

    def describe(self, *summaries: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return a run's metrics.csv.

    Args:
        workdir: The run's folder.

    Raises:
        ValueError: If it is damaged.

    Returns:
        A list of dicts from column to number, integers for "step" and "epoch"; empty cells are
        left out. See `Records` for an example.

    Example:
        >>> read("no/such/folder")
        []
    """
    return list(map(_numbers, _rows(pathlib.Path(workdir, "metrics.csv"))))


def _numbers(row):
    return {
        name: int(text) if name in ("step", "epoch") else float(text)
        for name, text in row.items()
        if text
    }


def _curves(row):
    return {name: value for name, value in row.items() if name not in ("step", "epoch")}


def _tags(summary):
    return [value.tag for value in summary.value]


def _rows(path):
    """Return the whole lines of a table; a line that was being written when it ended is none."""
    if not path.exists():
        return []
    try:
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.DictReader(io.StringIO(whole)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}. {REMEDY}") from error
    last = -1
    for row in rows:
        try:
            step = _numbers(row)["step"]
            good = None not in row and None not in row.values() and step > last
        except (KeyError, ValueError):
            good = False
        if not good:
            line = ",".join(map(str, row.values()))
            line = line if len(line) <= 60 else f"{line[:60]}…"
            raise ValueError(f"{path} is damaged at the line {line!r}. {REMEDY}")
        last = step
    return rows


def _events(folder):
    """Return the events in a folder's files, each once; a file ends where it is damaged."""
    found = {}
    for path in sorted(folder.glob(_EVENTS)):
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                key = (event.step, *_tags(event.summary), event.file_version)
                found.setdefault(key, event)
        except tf.errors.DataLossError:
            continue  # most often, the record that was being written when the run ended
    return list(found.values())


def _replace_events(folder, events):
    """Write events into one file, and remove the old files."""
    old = list(folder.glob(_EVENTS))
    whole = folder / "events.out.tfevents.0000000000.before"
    if events:
        beside = folder / "events.writing"
        with tf.io.TFRecordWriter(str(beside)) as out:
            for event in events:
                out.write(event.SerializeToString())
        beside.replace(whole)
    for path in old:
        if path != whole or not events:
            path.unlink()
