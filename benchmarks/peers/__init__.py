"""Comparisons with other libraries, each of which runs in a process and an environment of its own.

`make bench-peers` runs `biotorch_gradients.py` where torch and BioTorch are, and then
`python -m benchmarks.peers` where TensorFlow is; what they exchange are .npz files.
"""
