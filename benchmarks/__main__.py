"""All benchmarks, one after another: `make bench`, or `python -m benchmarks [name ...]`, on an otherwise idle machine.

Each runs in a separate process and puts its results into benchmarks/results.json and docs/benchmarks.md when it ends,
so what is done stays done where a later one fails.
"""

import argparse
import subprocess
import sys
import time

# In order of how long they take; docs/benchmarks.md says what each measures.
BENCHMARKS = (
    "report",
    "effective_scale",
    "verify",
    "generate",
    "agreement",
    "training",
    "executor",
    "metrics",
    "study",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[[], *BENCHMARKS], help=f"of {', '.join(BENCHMARKS)} (default: all)"
    )
    names = parser.parse_args().names or BENCHMARKS
    failed = []
    for number, name in enumerate(names, 1):
        print(f"benchmarks.{name} ({number} of {len(names)})", flush=True)
        started = time.perf_counter()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode:
            failed.append(name)
        print(f"benchmarks.{name}: {(time.perf_counter() - started) / 60:.0f} min", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the others are in docs/benchmarks.md")
    print(f"{len(names)} benchmarks in docs/benchmarks.md")


if __name__ == "__main__":
    main()
