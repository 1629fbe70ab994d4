"""For all tests: property tests draw the same examples every time. `--hypothesis-profile=explore` looks for new ones.

How long a draw takes is nothing that a test claims: on a busy machine it would fail for that alone.
"""

from hypothesis import HealthCheck, settings

BUSY = (HealthCheck.too_slow,)
settings.register_profile("explore", max_examples=1_000, suppress_health_check=BUSY, deadline=None)
settings.register_profile("gate", derandomize=True, suppress_health_check=BUSY, deadline=None)
settings.load_profile("gate")
