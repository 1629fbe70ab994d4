"""An operator needs two branches: what may succeed later, and the rest."""

import inspect

import pytest

from clipdrift_contract import errors, jobs
from clipdrift_contract.errors import ClipdriftError, ConfigError, PoisonError, RetryableError

CLASSES = [kind for module in (errors, jobs) for _, kind in inspect.getmembers(module, inspect.isclass)]
ALL = {kind for kind in CLASSES if issubclass(kind, Exception)}


@pytest.mark.parametrize("kind", sorted(ALL, key=lambda kind: kind.__name__))
def test_every_error_is_a_clipdrift_error_and_says_what_it_is_for(kind):
    assert issubclass(kind, ClipdriftError)
    assert kind.__doc__


def test_poison_and_configuration_are_never_retried():
    assert not issubclass(PoisonError, RetryableError)
    assert not issubclass(ConfigError, RetryableError)
