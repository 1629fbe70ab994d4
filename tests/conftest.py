"""For all tests: property tests draw the same examples every time. `--hypothesis-profile=explore` looks for new ones."""

from hypothesis import settings

settings.register_profile("explore", max_examples=1_000)
settings.register_profile("gate", derandomize=True)
settings.load_profile("gate")
