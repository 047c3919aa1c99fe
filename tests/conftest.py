"""Shared by all tests: two logical CPUs, a fresh global seed, and no network."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As in trainers/__init__.py, which says why.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# What XLA compiles is looked at, not how fast it runs: compiling takes a quarter less so.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker to a core: with as many threads each for one operation they would wait for another.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import pytest


def pytest_sessionstart(session):
    """Prepare a process that runs tests.

    The one that hands tests out to workers imports none of this, so that they begin at once.
    """
    if session.config.pluginmanager.hasplugin("dsession"):  # of pytest-xdist
        return
    import tensorflow as tf
    from hypothesis import HealthCheck, settings

    # Two replicas for MirroredStrategy; must come before TensorFlow's first operation.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    settings.register_profile(
        "tfbio",
        deadline=None,  # the first example compiles
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("tfbio")


SLOW = ("training", "trainers", "detect", "workers", "conformance", "steps")
"""The modules that take minutes."""


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that the workers, a module to each, end together."""
    rank = {f"test_{name}.py": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.name, len(SLOW)))


@pytest.fixture(autouse=True)
def _fresh():
    import keras

    from tfbio import _keras

    keras.utils.set_random_seed(0)
    # TensorFlow's own way: two strategies in one process would take each other's exchanges for
    # their own, and fail where the models' shapes differ.
    _keras.separate_collectives()
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True, scope="module")
def _free():
    from tfbio.training import memory

    # Not after every test: it collects garbage, which takes longer than many a test.
    with memory.freed():
        yield
