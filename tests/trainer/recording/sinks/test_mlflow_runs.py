"""Curves in MLflow, in the run that the version is registered from."""

import pytest
from sink_fakes import window

from clipdrift_contract.events import ClipSpec, RunEnd, SliceScore
from clipdrift_trainer.recording.sinks.mlflow_runs import MlflowSink
from clipdrift_trainer.registry import MlflowRegistry

pytestmark = pytest.mark.slow  # MLflow takes eight seconds to import and to make its tables

END = RunEnd(
    run_id="r", model="m", version="v1", started_at_ms=0, ended_at_ms=5, data_start_ms=0, data_end_ms=1, as_of_ms=1,
    data_digest="d", code_revision="c", seed=3, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=100,
    artifact_digest="a", artifact_uri="file:///m.onnx",
    validation=(SliceScore(slice="", num_rows=100, num_correct=80, nll_sum=50.0, brier_sum=20.0, ece=0.05),),
)  # fmt: skip


def test_curves_and_figures_of_a_run_are_in_one_entry_in_whichever_order_they_come(tmp_path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sink, registry, client = MlflowSink(uri), MlflowRegistry(uri), MlflowClient(tracking_uri=uri, registry_uri=uri)
    sink.send([window(0, loss_sum=50.0)])
    registry.register(END)
    sink.send([window(50, loss_sum=25.0), END])
    sink.close()
    (entry,) = client.search_runs([client.get_experiment_by_name("m").experiment_id])
    assert entry.data.metrics["accuracy"] == 0.8
    assert [(one.step, one.value) for one in client.get_metric_history(entry.info.run_id, "loss")] == [(50, 1.0), (100, 0.5)]
    assert entry.data.tags["clipdrift.version"] == "v1"
    assert entry.info.status == "FINISHED"


def test_more_figures_than_one_batch_takes_are_logged_in_several(tmp_path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sink = MlflowSink(uri)
    sink.send([window(50 * i) for i in range(120)])
    sink.close()
    client = MlflowClient(tracking_uri=uri)
    (entry,) = client.search_runs([client.get_experiment_by_name("m").experiment_id])
    assert len(client.get_metric_history(entry.info.run_id, "grad_norm")) == 120
