"""Whether the diagnosis names the right cause: scenarios with a known one, a confusion table, and one JSON object last.

A scenario is 12 validated days and 24 days of production of a small model that was really trained on rows of one of four data
sets (bench/diagnosis_worlds.py). From day 10 on something goes wrong, or nothing does; each day goes through the monitor's
windows and its judge, and the diagnosis of the last day is compared with what was done to the rows. Half of the runs are told
as clipped so hard that removed mass alone would blame clipping; where clipping is the cause, the model was trained with the
bound and its twin without, and the contrast of the two is measured on held-out days.

`accuracy` is the share of scenarios that are right: one cause, the first that is told. Of a pair of causes, the first that is
told is one of the two and the other is told too, as contributing. `clipping_blamed_falsely` is the share of all scenarios in
which clipping is called the cause, or implicated, where a looser bound does not make the model better on all its days.

Rules were tuned with seeds below 1,000 (`python bench/diagnosis.py 0`); reported are seeds from 1,000 on, which no rule has
seen. The worlds share no code with the rules.
"""

import json
import sys
from collections import Counter, defaultdict

from diagnosis_court import told_of
from diagnosis_scenarios import CAUSES, NUM_EACH, PAIRS, make

_FIRST_SEED = 1_000


def main(first_seed: int) -> None:
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    num_right = num_pairs_right = num_blamed = num_scenarios = 0
    wanted = [(cause, cause) for cause in CAUSES for _ in range(NUM_EACH[cause])] + [pair for pair in PAIRS for _ in range(2)]
    for number, (one, other) in enumerate(wanted):
        scenario = make(one, other, first_seed + number)
        told, contributing, clipping = told_of(scenario)
        truth = scenario.causes
        is_right = told in truth and truth <= {told, *contributing}
        num_scenarios += 1
        num_right += is_right
        num_pairs_right += is_right and len(truth) == 2
        num_blamed += not scenario.is_clipping and (told == "clipping" or clipping == "implicated")
        if len(truth) == 1:
            confusion[one][one if told in truth else told] += 1
        if not is_right or "-v" in sys.argv:
            print(f"{'right' if is_right else 'WRONG'} {scenario.words}: told {told}, contributing {contributing}", flush=True)
    print_table(confusion)
    found = {
        "num_scenarios": num_scenarios, "accuracy": round(num_right / num_scenarios, 4),
        "clipping_blamed_falsely": round(num_blamed / num_scenarios, 4), "num_pairs": 2 * len(PAIRS),
        "pairs_right": num_pairs_right, "first_seed": first_seed,
        "recall": {cause: round(told[cause] / told.total(), 3) for cause, told in confusion.items()},
    }  # fmt: skip
    print(json.dumps(found))


def print_table(confusion: dict[str, Counter[str]]) -> None:
    """One row a cause, told causes beside it, the right one first."""
    print(f"{'what was wrong':28}{'told':>6}  of   otherwise told")
    for cause, told in confusion.items():
        others = ", ".join(f"{name} {count}" for name, count in told.most_common() if name != cause)
        print(f"{cause:28}{told[cause]:>6}  {told.total():<4} {others}")


if __name__ == "__main__":
    numbers = [int(one) for one in sys.argv[1:] if one.isdigit()]
    main(numbers[0] if numbers else _FIRST_SEED)
