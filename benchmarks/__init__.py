"""Benchmarks: what the learning rules cost, and how large their error signals are; a table each."""

import os

# Read once, when TensorFlow is first imported: a table should not stand among its log lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As in trainers/__init__.py, which says why.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
