"""Records: what a training writes down as it goes, for spreadsheets and for TensorBoard."""

import csv
import io
import pathlib

import tensorflow as tf

from tfbio.training.checkpoints import write


class Records:
    """metrics.csv and TensorBoard events of one run, without overlap or gap across resumptions.

    Args:
        workdir: The run's folder.
        columns: The columns of metrics.csv after "step" and "epoch".
        step: The last step of what is kept: what was written down for later ones is removed, and
            comes again. None at a run's start.

    Raises:
        ValueError: If there should be lines to keep, and are none.

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

    def __init__(self, workdir, columns, step):
        self._path = pathlib.Path(workdir, "metrics.csv")
        self._columns = ["step", "epoch", *columns]
        last = -1 if step is None else step
        rows = [row for row in _rows(self._path) if int(row["step"]) <= last]
        if last > 0 and not rows:
            raise ValueError(
                f"{self._path} is missing or damaged: it has no line up to step {last}, from which "
                "the run would go on. Give another --workdir."
            )
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write(self._path, text.getvalue().encode())
        _truncate_events(pathlib.Path(workdir), last)
        self._file = self._path.open("a", newline="")
        self._table = csv.DictWriter(self._file, self._columns, lineterminator="\n")
        self._writer = tf.summary.create_file_writer(str(workdir))

    def add(self, step, epoch, values, also=None):
        """Write one line of metrics.csv, and all values to TensorBoard.

        Args:
            step: The number of steps done; greater than the last line's.
            epoch: The epoch that the step belongs to, from 1.
            values: A dict from column to number; columns left out stay empty.
            also: Further values for TensorBoard alone, such as those that depend on the clock.
        """
        self._table.writerow({"step": step, "epoch": epoch, **values})
        self._file.flush()
        with self._writer.as_default(step):
            for name, value in {**values, **(also or {})}.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def describe(self, *summaries):
        """Write summaries that are not of any step, such as the run's options.

        Args:
            *summaries: Serialized `Summary` protocol buffers.
        """
        with self._writer.as_default(0):
            for summary in summaries:
                tf.summary.experimental.write_raw_pb(summary)
        self._writer.flush()

    def close(self):
        """Close the files."""
        self._file.close()
        self._writer.close()


def read(workdir):
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
    return [
        {
            name: int(text) if name in ("step", "epoch") else float(text)
            for name, text in row.items()
            if text
        }
        for row in _rows(pathlib.Path(workdir, "metrics.csv"))
    ]


def _rows(path):
    """Return the whole lines of a table; a line that was being written when it ended is none."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.DictReader(io.StringIO(whole)))
    for row in rows:
        if not (row.get("step") or "").isdecimal() or None in row or None in row.values():
            raise ValueError(f"{path} is damaged: it has the line {row!r}.")
    return rows


def _truncate_events(folder, last):
    """Write a run's events up to a step into one file, each once, and remove the old files."""
    old = sorted(folder.glob("events.out.tfevents.*"))
    if not old:
        return
    kept, seen = [], set()
    for path in old:
        try:
            for record in tf.data.TFRecordDataset(str(path)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                tags = tuple(value.tag for value in event.summary.value)
                key = (event.step, tags, event.file_version)
                if event.step <= last and key not in seen:
                    seen.add(key)
                    kept.append(record.numpy())
        except tf.errors.DataLossError:
            continue  # the record that was being written when the run ended
    whole = folder / "events.out.tfevents.0000000000.before"
    beside = folder / "events.writing"
    with tf.io.TFRecordWriter(str(beside)) as out:
        for record in kept:
            out.write(record)
    beside.replace(whole)
    for path in old:
        if path != whole:
            path.unlink()
