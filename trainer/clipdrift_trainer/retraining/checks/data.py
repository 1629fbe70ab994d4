"""What the data checks said of the rows that the candidate was trained on."""

from collections.abc import Sequence

import msgspec

from clipdrift_contract.events import DataCheck, GateCheck
from clipdrift_trainer.retraining.bounds import Role, checked

NAME = "data"


class DataPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What `[training.quality]` makes of the rows: a stop there is a fail here."""

    role: Role = "decisive"
    """Decides, is on trial (shown), or is not told (off). A stop ends the retrain in any case: nothing is exported then."""


def check_data(data_checks: Sequence[DataCheck], policy: DataPolicy) -> tuple[GateCheck, ...]:
    """The check; where nobody checked the rows (`[training.quality] mode = "off"`) it is not decisive and says so."""
    done = [one for one in data_checks if one.outcome != "skipped"]
    if not done:
        return (checked(NAME, "inconclusive", "the rows were not checked", None, None, "", "shown"),)
    stops, warnings = ([one for one in done if one.outcome == outcome] for outcome in ("stop", "warn"))
    if stops:
        words = "; ".join(f"{one.name}: {one.words}" for one in stops)
        return (checked(NAME, "fail", words, None, None, "", policy.role),)
    told = f", of which {len(warnings)} warned ({', '.join(one.name for one in warnings)})" if warnings else ""
    return (checked(NAME, "pass", f"{len(done)} checks of the training rows{told}", None, None, "", policy.role),)
