"""Command-line trainers: parse, build the experiments, call tfbio.training.

An installation has this package as `tfbio_trainers`, a link to this folder, because `trainers` is
too common a name to take in a user's environment. Its modules therefore import each other
relatively.
"""

import os
import pathlib
import signal
import sys

# TensorFlow's notes on how it was built; set before it is imported, and anyone may set it back.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow leaves oneDNN's kernels off where a CPU lacks AVX-512, and needs up to 30 times as long
# without them for the gradient of a convolution of small maps.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def end(number, frame):
    """End the program in one line: the handler of Ctrl-C while there is nothing to save."""
    os.write(sys.stderr.fileno(), b"error: Ended by SIGINT.\n")
    os._exit(128 + number)


# TensorFlow takes seconds to import, and would end in its traceback. Only where this is the
# program, not where it is imported: what `python -m` starts is called so while it is looked for.
_program = sys.argv[0] == "-m" or pathlib.Path(sys.argv[0]).name.startswith("tfbio-")
if _program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end)
