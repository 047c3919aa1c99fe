"""Command-line trainers: parse, build the experiments, call tfbio.training."""

import os

# TensorFlow's notes on how it was built; set before it is imported, and anyone may set it back.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
