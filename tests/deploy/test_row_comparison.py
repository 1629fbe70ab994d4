"""`clipdrift drift`: which rows are compared, and what is said where there are none."""

from pathlib import Path

import msgspec
import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import ServedVersion
from clipdrift_deploy.row_comparison import order_of
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.store import Changes, Store

DAY = 86_400_000


@pytest.fixture
def watched(make_project):
    project = make_project()
    Path(project.store_url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    served = ServedVersion(version="v1", uri="", digest="d")
    state = ModelState(model="pump", in_service=served, in_service_since_ms=100 * DAY, watermark_ms=140 * DAY - 1)
    store = Store(project.store_url)
    store.commit(Changes(models={"pump": msgspec.msgpack.encode(state)}))
    store.close()
    return project


def test_the_last_seven_days_are_compared_with_the_first_fourteen(watched):
    rows = order_of(watched, "pump", ()).rows
    assert (rows.reference_start_ms, rows.reference_end_ms) == (100 * DAY, 114 * DAY)
    assert (rows.current_start_ms, rows.current_end_ms) == (133 * DAY, 140 * DAY)


def test_the_reference_ends_where_the_rows_asked_for_begin(watched):
    rows = order_of(watched, "pump", ("evidently:ks",), start_ms=105 * DAY, end_ms=106 * DAY).rows
    assert (rows.reference_end_ms, rows.current_start_ms) == (105 * DAY, 105 * DAY)


@pytest.mark.parametrize(
    ("model", "detectors", "start_ms", "words"),
    [
        ("valve", (), None, "knows no model 'valve'; there are: pump"),
        ("pump", ("ks",), None, "no detector 'ks' on rows; there are mmd and Evidently's by name"),
        ("pump", (), 99 * DAY, "nothing lies before the rows asked for"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_there_is(watched, model, detectors, start_ms, words):
    with pytest.raises(ConfigError, match=words):
        order_of(watched, model, detectors, start_ms=start_ms)


def test_without_a_monitor_there_are_no_rows(make_project):
    with pytest.raises(ConfigError, match="no monitor has written"):
        order_of(make_project(), "pump", ())
