"""How the V1 payloads of a model that is served elsewhere are to be read."""

import msgspec


class LoggedForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the V1 payloads of a model are named, which name nothing themselves."""

    input_name: str = "input-0"
    """The tensor of instances that are lists or single values."""
    output_name: str = "output-0"
    """The tensor of predictions that are lists or single values."""
    columns: tuple[str, ...] = ()
    """Names for the positions of an instance that is a list: each becomes an input of its own."""
