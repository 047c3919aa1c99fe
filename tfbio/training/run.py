"""One run: where it stands, and how it goes on from there to its summary."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfbio import metrics
from tfbio._extras import MissingExtraError
from tfbio.training import board, folder, heatmap, images
from tfbio.training.checkpoints import Checkpoints
from tfbio.training.divergence import ADVICE, find_divergence
from tfbio.training.loop import Loop
from tfbio.training.records import NoRecords, Records, read
from tfbio.training.signals import Interrupted
from tfbio.training.state import restore, snapshot, state_variables
from tfbio.training.telemetry import OF_GRADIENTS, OF_WEIGHTS, Telemetry

if TYPE_CHECKING:
    from tfbio.training.preparation import Prepared
    from tfbio.training.signals import Signals

_IN_SUMMARY = {
    **{tag: name for name, tag in metrics.TAGS.items()},
    "gradient_angle": "gradient_angles",
    "local_gradient_angle": "local_gradient_angles",
}
"""What a summary calls what telemetry measures."""


DIVERGED = "diverged.json"
"""The file of a run's folder that says at which step, and why, a run ended as it diverged."""


class Diverged(ArithmeticError):  # noqa: N818
    """Raised when the loss or a weight becomes NaN or infinite."""


def show_nothing(done: int, total: int) -> None:
    """Show no progress.

    Args:
        done: The steps or batches done.
        total: Those in all.

    Example:
        >>> show_nothing(1, 2)
    """


class Reporter(NamedTuple):
    """The functions by which a training reports how it goes.

    Attributes:
        tell: Called with lines of text.
        progress: Called with the steps done and the steps in all.
        epochs: Whether to report every epoch.
        measuring: Called with the batches measured and those in all.
    """

    tell: Callable[[str], None]
    progress: Callable[[int, int], None] = show_nothing
    epochs: bool = True
    measuring: Callable[[int, int], None] = show_nothing


@dataclasses.dataclass
class _Progress:
    """What a checkpoint holds besides the variables.

    Attributes:
        recorded: Whether the epoch that ends at the present step, if one does, has its line.
        best: The step of the best validation score so far, and its measures.
        seconds: The time that training steps have taken, compilation included.
        seconds_per_step: The median over calls since the last start, without the first call.
        replicas: The number of devices.
        lines: The number of lines of metrics.csv.
    """

    recorded: bool = True
    best: dict | None = None
    seconds: float = 0.0
    seconds_per_step: float | None = None
    replicas: int = 1
    lines: int | None = None


class Training:
    """One run: where it stands, and how it goes on from there.

    Args:
        prepared: A `Prepared`.
        path: The run's folder; what it holds is gone on from.
        reporter: A `Reporter`.
        signals: A `Signals`.

    Attributes:
        prepared: The same.
        step: The number of steps done.
    """

    def __init__(
        self, prepared: Prepared, path: pathlib.Path, reporter: Reporter, signals: Signals
    ):
        self.prepared, self.path, self.reporter, self.signals = prepared, path, reporter, signals
        self.tell = reporter.tell
        self.experiment, self.model = prepared.experiment, prepared.model
        self.total = self.experiment.epochs * prepared.steps_per_epoch
        self.loop = Loop(prepared)
        self.variables = state_variables(self.model)
        self.checkpoints = Checkpoints(path / "checkpoints", self.experiment.keep_checkpoints)
        self.best_checkpoint = Checkpoints(path / "best", keep=1)
        found = self._newest(self.checkpoints)
        self.step, self.progress = 0, _Progress(replicas=prepared.devices.replicas)
        if found:
            self._resume_from(*found)
        self.calls = []  # seconds per step
        self.clock = self.step, self.progress.seconds  # at the last record
        self.saved_at = time.monotonic()
        self.telemetry = Telemetry(prepared)
        learned = self.model.get_metrics_result()
        self.validated = [f"validation_{name}" for name in self.experiment.measures]
        columns = ["learning_rate", *learned, *self.validated, *self.telemetry.columns]
        # The line of an epoch's end that the checkpoint does not know of is written again.
        kept = self.step if self.progress.recorded else self.step - 1
        self.records = NoRecords()
        if prepared.devices.chief:
            self.starts = folder.note_start(path, self.step if found else None)
            folder.save_json(path / "layers.json", self.telemetry.averaged._asdict())
            lines = self.progress.lines
            self.records = Records(path, columns, kept if found else None, lines, self.tell)
            self.records.describe(*board.descriptions(self.experiment))
        if not found:
            curves = self.telemetry.of_weights() | self.telemetry.of_gradients()
            self.records.add(0, 0, curves)
            if self.experiment.init_from:
                self.save()  # what it started from may change, or go

    def _newest(self, checkpoints):
        """Return the chief's newest checkpoint that is whole, or None; for all workers the same."""
        devices = self.prepared.devices
        found = checkpoints.latest(self.tell) if devices.chief else None
        step = devices.agree(found[0] if found else -1)
        if step >= 0 and not devices.chief:
            # Damaged ones, which only the chief may move, are out of the way now.
            found = checkpoints.latest(self.tell)
            if found is None or found[0] != step:
                raise ValueError(
                    f"`workdir={self.path}` must be one folder for all workers: this one, "
                    f"{devices.worker}, has no checkpoint of step {step}, as the chief has."
                )
        return found

    def _resume_from(self, step, arrays, progress):
        self.step, self.progress = step, _Progress(**progress)
        replicas = self.prepared.devices.replicas
        if replicas != self.progress.replicas:
            raise ValueError(
                f"`workdir={self.path}` holds a run on {self.progress.replicas} devices, now "
                f"{replicas}. Give as many, or another folder."
            )
        restore(self.variables, self.prepared.devices, arrays)
        self.tell(f"Going on from step {self.step:,} of {self.total:,}.")

    def run(self) -> None:
        """Train until the last step is taken, recorded and saved."""
        if self.prepared.devices.chief:
            (self.path / DIVERGED).unlink(missing_ok=True)
        try:
            if not self.progress.recorded:
                self._end_epoch()
            while self.step < self.total:
                self.train_epoch()
            self._draw_angles()
        except Interrupted:
            self.save()
            self.tell(f"Saved at step {self.step:,}; the same command goes on from there.")
            raise
        except Diverged as error:
            if self.prepared.devices.chief:
                # Without the advice, whose paths are where the folder is now.
                reason = str(error).partition(";")[0] + "."
                folder.save_json(self.path / DIVERGED, {"step": self.step, "reason": reason})
            raise
        finally:
            self.records.close()

    def train_epoch(self) -> None:
        """Train from the present step to the end of its epoch."""
        for _ in self.stretches():
            pass

    def stretches(self) -> Iterator[None]:
        """Train likewise; yield each time when there is something to look at."""
        index, start = divmod(self.step, self.prepared.steps_per_epoch)
        end = self.step - start + self.prepared.steps_per_epoch
        if start == 0:
            self.model.reset_metrics()
        batches = iter(self.prepared.epoch(index, start))
        while self.step < end:
            self.signals.heed()
            self.take_steps(batches, min(self._steps_to_next_event(), end - self.step))
            if self.step == end:
                self.progress.recorded = False
                self._end_epoch()
            elif self.telemetry.due(self.step):
                self._record(self.telemetry.of_weights() | self.telemetry.of_gradients())
            elif self.experiment.log_every and self.step % self.experiment.log_every == 0:
                self._record({})
            if self._due_to_save():
                self.save()
            self.reporter.progress(self.step, self.total)
            yield

    def _due_to_save(self):
        """Return whether a checkpoint is due; if it is to one worker, all write it."""
        e = self.experiment
        late = (
            e.checkpoint_minutes and time.monotonic() - self.saved_at >= 60 * e.checkpoint_minutes
        )
        due = self.step == self.total or self.step % e.checkpoint_every == 0 or late
        return bool(self.prepared.devices.agree(int(bool(due))))

    def _steps_to_next_event(self):
        e = self.experiment
        periods = (e.steps_per_call, e.checkpoint_every, e.log_every, e.telemetry_every)
        return min(period - self.step % period for period in periods if period)

    def take_steps(self, batches: Iterator[Any], steps: int) -> None:
        """Take steps in one compiled call, and time them.

        Args:
            batches: The batches of the epoch that are left.
            steps: How many to take.

        Raises:
            Diverged: If the loss becomes NaN or infinite.
        """
        begin = time.perf_counter()
        taken, finite = self.loop.train(batches, steps)
        seconds = time.perf_counter() - begin
        self.step += taken
        if not finite:
            raise Diverged(f"The loss is no finite number at step {self.step}; {self._advice()}")
        self.progress.seconds += seconds
        self.calls.append(seconds / steps)
        # The first call compiles: it counts where there is no other.
        if self.calls[1:] or self.progress.seconds_per_step is None:
            self.progress.seconds_per_step = statistics.median(self.calls[1:] or self.calls)

    def _end_epoch(self):
        """Validate, and write down the end of an epoch."""
        values, others = {}, {}
        if self.prepared.validation is not None:
            measured = self.measure("validation", self.prepared.validation, self._show)
            values = {name: measured.pop(name) for name in self.validated}
            others = measured
            best = self.progress.best
            score = f"validation_{self.experiment.score}"
            if best is None or values[score] > best[score]:
                self.progress.best = {"step": self.step, **values, **others}
                self._save_to(self.best_checkpoint)
        values |= self.telemetry.of_weights()
        if self.telemetry.due(self.step) or self.step == self.total:
            values |= self.telemetry.of_gradients()
        self._record(values, others, end_of_epoch=True)
        self.progress.recorded = True

    def _show(self, name, image):
        self.records.show(self.step, name, image)

    def _draw(self, name, image):
        if self.prepared.devices.chief:
            images.write(self.path / f"{name}.png", image)

    def _draw_angles(self):
        """Draw the angles of all layers over all steps, from metrics.csv, as heat maps."""
        if self.prepared.devices.chief:
            try:
                image = heatmap.draw(read(self.path), self.telemetry.averaged)
            except MissingExtraError as error:
                self.tell(f"angles.png is not drawn: {error}")
                return
            self._show("angles", image)
            self._draw("angles", image)

    def _record(self, values, others=None, end_of_epoch=False):
        epoch = -(-self.step // self.prepared.steps_per_epoch)
        learned = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        # The rate of the step just taken.
        learned["learning_rate"] = float(self.prepared.schedule(self.step - 1))
        values = {**learned, **values}
        step, seconds = self.clock
        self.clock = self.step, self.progress.seconds
        images = self.prepared.images_by(self.step) - self.prepared.images_by(step)
        speed = images / max(self.progress.seconds - seconds, 1e-9)
        others = {**(others or {}), **({"images_per_second": speed} if images else {})}
        self.records.add(self.step, epoch, values, others)
        if end_of_epoch and self.reporter.epochs:
            self.tell(
                f"epoch {epoch:>3}/{self.experiment.epochs}, step {self.step:,}: "
                f"{self.prepared.task.report(values)}, {speed:,.0f} images/s"
            )

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        self._save_to(self.checkpoints)
        self.saved_at = time.monotonic()

    def _save_to(self, checkpoints):
        arrays = snapshot(self.variables, self.prepared.devices)
        for array in arrays.values():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise Diverged(
                    f"A weight is no finite number at step {self.step}; {self._advice()}"
                )
        if self.prepared.devices.chief:
            self.progress.lines = self.records.lines
            checkpoints.save(self.step, arrays, dataclasses.asdict(self.progress))

    def _advice(self):
        kept = "no checkpoint was written yet"
        if found := self.checkpoints.latest(self.tell):
            kept = f"the last good checkpoint, of step {found[0]}, is kept in {self.path}"
        return f"{kept}. {ADVICE}"

    def measure(
        self, name: str, split: Any, show: Callable[[str, Any], None] | None = None
    ) -> dict[str, Any]:
        """Return the task's measures of the present weights on a split, by name.

        Args:
            name: What the measures' names begin with, such as "validation".
            split: The examples to measure on.
            show: Called with the name and the image of each picture, or None for no pictures.
        """

        def heed(done, total):
            self.signals.heed()
            self.reporter.measuring(done, total)

        measures = self.loop.evaluate(split, heed, show)
        return {f"{name}_{key}": value for key, value in measures.items()}

    def validated_only(self) -> dict[str, Any]:
        """Return what is known without a test: the measures on validation, best and last."""
        final = read(self.path)[-1]
        values = {name: final[name] for name in self.validated if name in final}
        diverged = self._find_divergence()
        return {**values, "best": self.progress.best, "steps": self.step, "diverged": diverged}

    def _find_divergence(self):
        """Return why the run has diverged though its loss is finite; None if it has not."""
        prepared = self.prepared
        chance = prepared.task.chance_loss(prepared.experiment, prepared.facts)
        return find_divergence(read(self.path), chance) or None

    def summarize(self) -> None:
        """Test the final weights and the best ones, and write summary.json."""
        test = self.measure("test", self.prepared.dataset.test, self._draw)
        best = self._test_best(test)
        learned = self.model.get_metrics_result()
        if not self.prepared.devices.chief:
            return
        final = read(self.path)[-1]
        summary = {
            **test,
            **{name: final[name] for name in (*learned, *self.validated) if name in final},
            "best": best,
            "steps": self.step,
            "diverged": self._find_divergence(),
            "epochs": self.experiment.epochs,
            "resumed_at_steps": [start["step"] for start in self.starts[1:]],
            **{_IN_SUMMARY[tag]: _get_by_layer(tag, final) for tag in OF_WEIGHTS},
            **{_IN_SUMMARY[tag]: _get_by_layer(tag, final) or None for tag in OF_GRADIENTS},
            **{name: value for name, value in final.items() if name.startswith(metrics.PREFIX)},
            "averaged_layers": self.telemetry.averaged._asdict(),
            "seconds_per_step": self.progress.seconds_per_step,
            "seconds": self.progress.seconds,
        }
        folder.save_json(self.path / "summary.json", summary)

    def _test_best(self, test):
        """Return the measures at the step that validation chose; the model stays as it is."""
        best = self.progress.best
        if best is None or best["step"] == self.step:
            return best and {**best, **test}
        saved = self._newest(self.best_checkpoint)
        if saved is None or saved[0] != best["step"]:
            self.tell(f"The weights of the best step, {best['step']:,}, are lost: not tested.")
            return best
        devices = self.prepared.devices
        final = snapshot(self.variables, devices)
        restore(self.variables, devices, saved[1])
        tested = self.measure("test", self.prepared.dataset.test)
        restore(self.variables, devices, final)
        return {**best, **tested}


def _get_by_layer(tag, record):
    """Return what a line of metrics.csv has under a tag, by layer."""
    prefix = f"{tag}/"
    return {k.removeprefix(prefix): v for k, v in record.items() if k.startswith(prefix)}
