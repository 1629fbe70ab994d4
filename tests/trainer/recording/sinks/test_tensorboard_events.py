"""What TensorBoard reads back."""

import pytest
from sink_fakes import files_end_at, window

from clipdrift_contract.errors import RetryableError
from clipdrift_trainer.recording.sinks.tensorboard_events import TensorBoardSink

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_the_histogram_is_the_windows_own(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.send([window(0, norm_histogram={0: 30, 4: 20}, norm_min=1.0, norm_max=2.2, norm_sum=74.0, norm_sq_sum=126.8)])
    sink.close()
    written = accumulator.EventAccumulator(str(tmp_path / "r"))
    written.Reload()
    (event,) = written.Histograms("clipdrift/grad_norm_before_clip")
    histogram = event.histogram_value
    counts = dict(zip((round(limit, 3) for limit in histogram.bucket_limit), histogram.bucket, strict=True))
    assert (event.step, histogram.num, histogram.min, histogram.max) == (50, 50, 1.0, 2.2)
    assert counts[round(2**0.25, 3)] == 30
    assert counts[round(2**1.25, 3)] == 20
    assert sum(counts.values()) == 50


def test_runs_have_folders_of_their_own(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.send([window(0, "a/b"), window(0, "c")])
    sink.close()
    assert {path.name for path in tmp_path.iterdir()} == {"a_b", "c"}


def test_what_a_full_disk_cut_off_is_written_again_and_nothing_twice(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.send([window(0)])
    (file,) = (tmp_path / "r").iterdir()
    with files_end_at(file.stat().st_size + 100), pytest.raises(RetryableError):
        sink.send([window(50), window(100)])
    sink.send([window(50), window(100)])
    sink.close()
    written = accumulator.EventAccumulator(str(tmp_path / "r"))
    written.Reload()
    assert [scalar.step for scalar in written.Scalars("clipdrift/loss")] == [50, 100, 150]
