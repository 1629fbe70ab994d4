"""The `clipdrift` command with a fault planted in the monitor, for the test that must find it.

Rows of the champion count as the canary's, and the other way round.
"""

from clipdrift_deploy.cli import main
from clipdrift_monitor.rollout.comparison import Comparison

TURNED = {"candidate": "champion", "champion": "candidate", "pairs": "pairs", None: None}
right = Comparison.part_of


def part_of(self, version, role, generation):
    return TURNED[right(self, version, role, generation)]


if __name__ == "__main__":
    Comparison.part_of = part_of
    main()
