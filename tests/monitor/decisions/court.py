"""A judge with one model before it, and rows that the test makes up."""

import numpy as np
from dialogue import DAY, POLICY, labels, predictions, rows, run_end

from clipdrift_contract.events import ServedVersion
from clipdrift_monitor.decisions.judging import judge, total
from clipdrift_monitor.decisions.subject import Subject
from clipdrift_monitor.diagnosis.faults import PastBlock
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import start
from clipdrift_monitor.risk.reference import reference_of
from clipdrift_monitor.state import ModelState, OpenBlock
from clipdrift_monitor.windows.window import Layout, label_sums, prediction_sums


class Court:
    """One model, judged block by block from rows that the test makes up."""

    def __init__(self, policy=POLICY, min_label_share=0.5, **run):
        self.run = run_end(**run)
        self.layout = Layout(self.run.profile)
        self.harm = start(reference_of(self.run), Allotment(budget=policy.budget, severities=policy.severity))
        served = ServedVersion(version=self.run.version, uri=self.run.artifact_uri, digest=self.run.artifact_digest)
        self.state = ModelState(model="pump", generation=1, in_service=served)
        self.subject = Subject(
            run=self.run,
            layout=self.layout,
            window_ms=DAY,
            label_horizon_ms=DAY,
            min_label_share=min_label_share,
            policy=policy,
        )
        self.view, self.past = {}, []

    def judge(self, day, columns, labelled=slice(None)):
        part = {name: values[labelled] for name, values in columns.items()}
        in_block = {}
        for key, sums in [
            *prediction_sums(self.layout, predictions(columns), DAY),
            *label_sums(self.layout, labels(part), np.ones(len(part["label"]), bool), DAY),
        ]:
            in_block[key.slice_index] = in_block.get(key.slice_index, 0) + sums
        for index, sums in in_block.items():
            self.view[index] = self.view.get(index, 0) + sums
        errors = part["predicted"] != part["label"]
        self.state.open_blocks = {day * DAY: OpenBlock().with_labels(part["time_ms"], errors, 10_000)}
        past, self.past = self.past, [*self.past, PastBlock(start_ms=day * DAY, sums=total(self.layout, in_block))]
        return judge(self.subject, self.state, self.harm, day * DAY, in_block, self.view, past)

    def judge_days(self, first, last, **how):
        return [self.judge(day, rows(day, **how)) for day in range(first, last)]
