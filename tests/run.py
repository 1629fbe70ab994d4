"""Runs the test suites in an order that finds the common mistakes first, and says what was left out and why.

`python tests/run.py quick` needs no server; `all` adds the marked suites, one after another so that servers do not fight for
the machine's cores.
"""

import os
import subprocess
import sys
import time

MARKED = ("broker", "postgresql", "prometheus", "browser", "ci", "system", "slow")
UNMARKED = " and ".join(f"not {name}" for name in MARKED)


def run(title: str, *arguments: str) -> int:
    """One pytest run with the project's own options; 5 (nothing collected) counts as an error."""
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], check=False).returncode
    print(f"== {title}: {'ok' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - started:.0f} s", flush=True)
    return code


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in ("quick", "all"):
        print("usage: tests/run.py quick|all", file=sys.stderr)
        return 2
    codes = [run("unit, conformance and doctests", "-m", UNMARKED, "-n", "2", "--dist", "loadfile")]
    if sys.argv[1] == "all":
        if not os.environ.get("KAFKA_HOME"):
            print("KAFKA_HOME is not set: the bus suite runs on librdkafka's mock broker only")
        marked = ("-m", " or ".join(MARKED))
        code = run("with servers: " + ", ".join(MARKED), *marked)
        if code == 1:  # real servers on a busy machine: what fails twice is broken, what fails once is told here as such
            code = run("once more, what failed with servers", *marked, "--last-failed", "--last-failed-no-failures=none")
        codes.append(code)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
