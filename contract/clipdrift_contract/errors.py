"""Errors that a caller branches on. Bad arguments are `ValueError`; a broken own invariant is `assert`."""


class ClipdriftError(Exception):
    """Base of every error that Clipdrift raises on purpose."""


class RetryableError(ClipdriftError):
    """Something outside is away (a broker, a store, a server): the same call may succeed later."""


class PoisonError(ClipdriftError):
    """A record that can never be read: wrong type, wrong schema, cut off. Park it, count it, go on."""


class ConfigError(ClipdriftError):
    """The user's project or environment is wrong; the message says what to change."""
