"""A tf.data service: other machines read and decode, and a silent one ends the run."""

import queue
import re
import socket
import threading

import tensorflow as tf

from tfbio.data.errors import BatchError

_AHEAD = 2  # batches that wait on this side
_CONNECT = 10  # seconds


class Service:
    """Where batches are made: the dispatcher of a tf.data service.

    The batches are those of the local pipeline, bit by bit and in its order, so that a run can be
    resumed with or without a service. For that the service must have one worker: several would
    each make every batch, which is refused once it shows. Workers read the same paths.

    TensorFlow waits for a dispatcher or a worker that is gone without a word and without end: here
    an error is raised.

    Args:
        address: Such as "grpc://host:5000".
        timeout: Seconds to wait for a batch.

    Raises:
        ValueError: If the address is of another form.

    Example:
        >>> Service("host:5000", timeout=300)
        Traceback (most recent call last):
        ValueError: `address` must be of the form grpc://host:port. Received: 'host:5000'.
    """

    def __init__(self, address: str, timeout: float):
        form = re.fullmatch(r"grpc://(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", address)
        if not form:
            raise ValueError(
                f"`address` must be of the form grpc://host:port. Received: {address!r}."
            )
        self._host, self._port = form[1].strip("[]"), int(form[2])
        self._address, self._timeout = address, timeout

    def check(self) -> None:
        """Refuse an address at which nobody listens.

        Raises:
            OSError: If it cannot be connected to.
        """
        try:
            socket.create_connection((self._host, self._port), _CONNECT).close()
        except (OSError, OverflowError) as error:
            raise OSError(
                f"The tf.data service {self._address} cannot be reached: {error}. Start its "
                "dispatcher and one worker."
            ) from error

    def stream(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return a dataset of the same elements, which are made by the service.

        Args:
            dataset: A `tf.data.Dataset` of known length, without functions in Python.

        Returns:
            A `tf.data.Dataset`. It fails if an element is too late or out of turn.
        """
        remote = dataset.enumerate().apply(
            tf.data.experimental.service.distribute(
                processing_mode=tf.data.experimental.service.ShardingPolicy.OFF,
                service=self._address,
            )
        )
        length = int(dataset.cardinality())

        def elements():
            arrived, ended = queue.Queue(_AHEAD), threading.Event()
            fetcher = threading.Thread(target=_fetch, args=(remote, arrived, ended), daemon=True)
            fetcher.start()
            try:
                for expected in range(length):
                    yield self._next(arrived, expected)
            finally:
                ended.set()

        received = tf.data.Dataset.from_generator(elements, output_signature=dataset.element_spec)
        return received.apply(tf.data.experimental.assert_cardinality(length))

    def _next(self, arrived, expected):
        try:
            found = arrived.get(timeout=self._timeout)
        except queue.Empty:
            raise BatchError(
                f"The tf.data service {self._address} gave no batch within its timeout of "
                f"{self._timeout} seconds: its dispatcher or its worker is gone, or too slow."
            ) from None
        if isinstance(found, Exception):
            line = str(found).strip().partition("\n")[0]
            raise BatchError(f"The tf.data service {self._address} failed: {line}") from found
        index, element = found
        if index != expected:
            raise BatchError(
                f"The tf.data service {self._address} gave batch {int(index)} instead of batch "
                f"{expected}: it must have one worker, since several do not keep the order."
            )
        return element


def _fetch(remote, arrived, ended):
    def put(item):
        while not ended.is_set():
            try:
                return arrived.put(item, timeout=1)
            except queue.Full:
                continue

    try:
        for item in remote:
            put(item)
            if ended.is_set():
                return
    except (tf.errors.OpError, RuntimeError) as error:
        put(error)
