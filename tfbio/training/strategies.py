"""Strategies: where an experiment's steps run, on which devices of which processes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfbio import _keras

if TYPE_CHECKING:
    from tfbio.training.experiment import Experiment

STRATEGIES = ("one_device", "mirrored", "multi_worker", "tpu")

HANG = 600
"""Seconds after which a worker that is there but does not answer is given up."""

LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises where another worker has ended or does not answer."""


class WorkerLost(ConnectionError):  # noqa: N818
    """Another worker of the same run has ended, or does not answer."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """A strategy, and this process's place among those that run it.

    Attributes:
        strategy: The `tf.distribute.Strategy`.
        worker: This process's number, from 0.
        workers: How many processes there are, each with as many devices.
        static: Whether every batch must be of one shape, as a TPU wants it.

    Example:
        >>> devices = Devices(tf.distribute.get_strategy())
        >>> devices.chief, devices.replicas
        (True, 1)
    """

    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1
    static: bool = False

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """The number of devices over all processes, each with its copy of the model."""
        return self.strategy.num_replicas_in_sync

    @property
    def local(self) -> int:
        """The number of devices of this process."""
        return self.replicas // self.workers

    def distribute(self, batches: Callable[[tuple[int, int]], tf.data.Dataset]) -> Any:
        """Return a dataset of global batches, every device's part on that device.

        Args:
            batches: A function from (worker, workers) to the `tf.data.Dataset` of that worker's
                part of every batch.
        """

        def of_worker(context):
            dataset = batches((context.input_pipeline_id, context.num_input_pipelines))
            if self.local == 1:
                return dataset
            return dataset.map(
                lambda *batch: tf.nest.map_structure(lambda part: in_parts(part, self.local), batch)
            ).unbatch()

        return self.strategy.distribute_datasets_from_function(of_worker)

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Return every worker's array, stacked by worker. All workers must call it.

        Args:
            array: A NumPy array of int32 or int64, of the same shape on all workers.
        """
        if self.workers == 1:
            return array[None]
        values = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[None])
        )
        return _gather(self.strategy)(values).numpy()[:: self.local]

    def agree(self, value: int) -> int:
        """Return the greatest of all workers' integers. All workers must call it."""
        return int(self.gather(np.array([value], np.int64)).max())

    def check_same(self, document: Any) -> None:
        """See that all workers have been started alike.

        Args:
            document: What must be the same, for JSON.

        Raises:
            ValueError: If it is not.
        """
        text = json.dumps(document, sort_keys=True).encode()
        digest = np.frombuffer(hashlib.blake2b(text, digest_size=8).digest(), np.int64)
        if len(np.unique(self.gather(digest))) > 1:
            raise ValueError(
                "`strategy='multi_worker'`: the workers have other options or data than each "
                "other. Start all with the same command and the same files."
            )


def get_devices(experiment: Experiment) -> Devices:
    """Return the devices that an experiment asks for; the same ones within a process.

    Under "multi_worker" it must come before anything that TensorFlow computes.

    Args:
        experiment: An `Experiment`.

    Returns:
        A `Devices`.

    Raises:
        ValueError: If they are not there, or do not go with the other options.
        WorkerLost: If other workers do not come.

    Example:
        >>> from tfbio.training import Classification
        >>> get_devices(Classification()).workers
        1
    """
    devices = _devices(experiment.strategy, experiment.tpu)
    parts = devices.replicas * experiment.accumulate
    if experiment.batch_size % parts:
        raise ValueError(
            f"`batch_size` is over all devices, and must divide by their number, "
            f"{devices.replicas}, times `accumulate`, {experiment.accumulate}. "
            f"Received: {experiment.batch_size}."
        )
    if experiment.sync_batch_norm and devices.replicas == 1:
        raise ValueError(
            "`sync_batch_norm` has no effect on one device. Received: "
            f"`strategy='{experiment.strategy}'`, with one."
        )
    return devices


def forget_devices() -> None:
    """Have `get_devices` make its devices anew when it is next called.

    Needed only where one process trains several networks on replicas one after another, as tests
    do: each needs a strategy of its own, because replicas would take the exchanges of one network
    for those of another.

    Example:
        >>> from tfbio.training import Classification
        >>> before = get_devices(Classification())
        >>> forget_devices()
        >>> get_devices(Classification()) is before
        False
    """
    _devices.cache_clear()


@contextlib.contextmanager
def explaining_lost_worker(devices: Devices) -> Iterator[None]:
    """Explain TensorFlow's errors after the loss of another worker in one message.

    Args:
        devices: A `Devices`.

    Raises:
        WorkerLost: If another worker has gone.

    Example:
        >>> with explaining_lost_worker(Devices(tf.distribute.get_strategy(), worker=0, workers=2)):
        ...     raise tf.errors.UnavailableError(None, None, "Socket closed")
        Traceback (most recent call last):
        tfbio.training.strategies.WorkerLost: `strategy='multi_worker'`: worker 0 of...
    """
    try:
        yield
    except LOST as error:
        if devices.workers == 1:
            raise
        raise WorkerLost(
            f"`strategy='multi_worker'`: worker {devices.worker} of {devices.workers} has lost the "
            f"others ({type(error).__name__}): one has ended, or did not answer for {HANG} s; what "
            "it printed last says why. Start all workers again with the same commands: the run "
            "goes on from its newest checkpoint."
        ) from error


def in_parts(array: Any, count: int) -> Any:
    """Return a tensor's rows as `count` equal parts, along a new first axis.

    Args:
        array: A tensor of n·count rows.
        count: The number of parts.

    Example:
        >>> in_parts(tf.range(6), 2).numpy().tolist()
        [[0, 1, 2], [3, 4, 5]]
    """
    rows = -1 if array.shape[0] is None else array.shape[0] // count
    return tf.reshape(array, [count, rows, *array.shape[1:]])


@functools.cache
def _devices(name, tpu):
    # One for the process: two would take each other's exchanges between replicas for their own.
    _let_memory_grow()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return Devices(tf.distribute.MirroredStrategy([device.name for device in devices]))
    if name == "multi_worker":
        return _multi_worker(*cluster())
    if name == "tpu":
        return Devices(_tpu(tpu), static=True)
    return Devices(tf.distribute.get_strategy())


@functools.cache
def _gather(strategy):
    return tf.function(lambda values: strategy.gather(values, axis=0), reduce_retracing=True)


def _let_memory_grow():
    """Have TensorFlow take a GPU's memory as it needs it, not all of it at once."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            if not tf.config.experimental.get_memory_growth(gpu):
                tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError) as error:
            logging.getLogger("tfbio").warning(f"{gpu.name}: all of its memory is taken: {error}")


def cluster() -> Any:
    """Return what the environment says of the cluster: TF_CONFIG, or else Slurm's variables.

    Returns:
        (the addresses of all workers, this one's number).

    Raises:
        ValueError: If neither is there, or says what cannot be.

    Example:
        >>> os.environ["TF_CONFIG"] = json.dumps(
        ...     {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
        ... )
        >>> cluster()
        (['a:1', 'b:1'], 1)
        >>> del os.environ["TF_CONFIG"]
    """
    if os.environ.get("TF_CONFIG"):
        return _cluster_of_tf_config(os.environ["TF_CONFIG"])
    if "SLURM_JOB_ID" in os.environ:
        return _cluster_of_slurm(os.environ["SLURM_JOB_ID"])
    raise ValueError(
        "`strategy='multi_worker'` needs the environment variable TF_CONFIG, or to be started by "
        "Slurm's srun: docs/hardware.md has both. Neither is there."
    )


def _cluster_of_tf_config(text):
    example = (
        '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        if set(jobs) - {"chief", "worker"}:
            raise ValueError
        addresses = [*jobs.get("chief", []), *jobs.get("worker", [])]
        index = int(task["index"])
        if task["type"] == "worker":
            index += len(jobs.get("chief", []))
        if index != range(len(addresses)).index(index) or task["type"] not in jobs:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`strategy='multi_worker'`: TF_CONFIG must be like {example}. Received: {text!r}."
        ) from error
    return addresses, index


def _cluster_of_slurm(job):
    try:
        count = int(os.environ["SLURM_STEP_NUM_TASKS"])
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            # Jobs that share a node need ports of their own.
            port_base=20000 + int(job) % 20000,
            # Slurm itself gives every task its GPUs; the resolver wants to share some out.
            gpus_per_node=count,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        addresses = resolver.cluster_spec().as_dict()["worker"]
        return addresses, resolver.get_task_info()[1]
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(
            "`strategy='multi_worker'`: Slurm's variables do not say which workers there are "
            f"({type(error).__name__}: {error}). Start the command with srun, or set TF_CONFIG."
        ) from error


def _multi_worker(addresses, index):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}),
        task_type="worker",
        task_id=index,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )
    try:
        # As the strategy itself would; but its own waits an hour for workers that never come.
        _keras.configure_coordination(len(addresses), HANG)
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            resolver, tf.distribute.experimental.CommunicationOptions(timeout_seconds=HANG)
        )
    except RuntimeError as error:
        raise ValueError(
            "`strategy='multi_worker'` must come before anything that TensorFlow computes in this "
            f"process: {error}"
        ) from error
    except tf.errors.OpError as error:
        raise WorkerLost(
            f"`strategy='multi_worker'`: worker {index} did not find all of the {len(addresses)} "
            f"workers within {HANG} s, or its own address is taken: {', '.join(addresses)}. Start "
            f"one process for each. ({type(error).__name__}: {error.message})"
        ) from error
    return Devices(strategy, index, len(addresses))


def _tpu(address):
    name = address or os.environ.get("TPU_NAME", "local")
    if name == "local" and not importlib.util.find_spec("libtpu"):
        raise ValueError(
            "`strategy='tpu'`: there is no TPU here (the package libtpu is not installed). Install "
            "the extra tpu on a TPU machine, or give a TPU's name or address with `tpu`."
        )
    if name.startswith("grpc://"):
        _reach(name)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"`tpu={name}`: no TPU answers to it: {type(error).__name__}: {error}"
        ) from error


def _reach(address):
    """Raise ValueError unless something listens at an address; TensorFlow would wait for ever."""
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ValueError(f"`tpu={address}`: nothing answers there: {error}.") from error
