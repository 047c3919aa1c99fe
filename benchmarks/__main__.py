"""Run all benchmarks but `epoch_time` with their defaults, one after the other."""

import subprocess
import sys

BENCHMARKS = (
    "gradient_scale",
    "step_time",
    "target_propagation",
    "locally_connected",
    "telemetry",
    "detection_step",
    "peak_memory",
    "input_pipeline",
    "detection_input",
)


def main():
    """Run the benchmarks, and return 1 if one of them failed, else 0."""
    failed = 0
    for name in BENCHMARKS:
        # A process each: one benchmark's memory and threads must not reach another's timings.
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode != 0
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(f"python -m benchmarks takes no arguments. Received: {' '.join(sys.argv[1:])}")
    sys.exit(main())
