"""Names of people in what is recorded: as they call themselves, and by whose key they came."""

import re

_BY_KEY = " (by key {})"
_NAMED = re.compile(r"(?P<actor>.*) \(by key (?P<holder>[^()]*)\)")
_MAX_CHARACTERS = 64


def by_key(actor: str, holder: str) -> str:
    """Who acts, and by whose key, in one field of the record.

    Example:
        >>> by_key("ann", "ops"), by_key("ann", "ann"), by_key("ann", "")
        ('ann (by key ops)', 'ann', 'ann')
    """
    if not holder or actor == holder:
        return actor
    suffix = _BY_KEY.format(holder)
    room = _MAX_CHARACTERS - len(suffix)
    return actor[:room] + suffix if room > 0 else holder  # the key says for certain who it was


def people_in(actor: str) -> frozenset[str]:
    """Everybody that a field of the record names, in small letters; the monitor and its command line are nobody.

    Example:
        >>> sorted(people_in("Ann (by key ops)")), sorted(people_in("monitor"))
        (['ann', 'ops'], [])
    """
    named = _NAMED.fullmatch(actor)
    names = (named["actor"], named["holder"]) if named is not None else (actor,)
    return frozenset(name.strip().casefold() for name in names) - {"", "monitor", "cli", "api"}
