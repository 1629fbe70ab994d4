"""One model, told day by day which signals are open and what the diagnosis finds."""

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Diagnosis, Signal
from clipdrift_monitor.incidents.config import IncidentConfig
from clipdrift_monitor.incidents.course import Sighting, follow, retire

DAY = MS_PER_DAY
SEVERITY = {"sudden_break": "page", "data_broken": "page", "worse_than_validated": "ticket", "repairable": "ticket",
            "labels_missing": "ticket", "training_fault": "ticket"}  # fmt: skip


def signal(kind, *, day=0, where="", feature="", severity=None, version="1"):
    return Signal(
        signal_id=f"pump-{version}-{kind}-{where}-{feature}-{day}", model="pump", version=version, kind=kind,
        severity=severity or SEVERITY.get(kind, "note"), detector=kind, window_start_ms=day * DAY,
        window_end_ms=(day + 1) * DAY, statistic=2.0, threshold=1.0, slice=where, feature=feature,
        summary=f"{kind} {where}{feature}".strip(),
    )  # fmt: skip


def drifts(num_features, day=0):
    return [signal("feature_drift", day=day, feature=f"x{i}") for i in range(num_features)]


class Story:
    """`told` holds every incident that was told, in order; `incidents` the working set."""

    def __init__(self, **settings):
        self.config = IncidentConfig(**settings)
        self.incidents = []
        self.told = []
        self.now_ms = 1_000 * DAY  # of the wall

    def day(self, day, *signals, cause="none", fault="", version="1", moved=(), **more):
        diagnosis = Diagnosis(
            cause=cause, fault=fault, clipping="unknown", words=f"The words on {cause}.", plain="In plain words."
        )
        course = follow(
            self.incidents,
            Sighting(
                model="pump", version=version, start_ms=day * DAY, end_ms=(day + 1) * DAY, at_ms=(day + 2) * DAY,
                now_ms=self.now_ms, signals=signals, diagnosis=diagnosis, decision_id=f"decision-{day}", moved=moved, **more,
            ),
            self.config,
        )  # fmt: skip
        return self._take(course)

    def replace_version(self, version, day):
        return self._take(retire(self.incidents, version, day * DAY))

    def respond(self, say, **given):
        """A person's word on the one open incident."""
        self.incidents = [say(one, **given) if one.is_open else one for one in self.incidents]
        return self.open()

    def open(self):
        """The one open incident."""
        (one,) = [one for one in self.incidents if one.is_open]
        return one

    @property
    def news(self):
        """What reached people: (change, severity)."""
        return [(one.change, one.severity) for one in self.told if one.is_news]

    def _take(self, course):
        self.incidents = course.incidents
        self.told += course.told
        return course.told
