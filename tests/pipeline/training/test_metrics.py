from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from model.batch import pack
from model.config import MODALITIES
from model.cost import document_counts, training_flops
from model.objective import VECTOR_LENGTH, LossSums
from pipeline.storage import Folder
from pipeline.training.feed import StepBatch
from pipeline.training.metrics import METRICS, Costs, MetricsLog, StepCounts, Window
from tests.factories.model import random_document, tiny_config


def _counts(**changes: float) -> StepCounts:
    values = {item.name: 0.0 for item in dataclasses.fields(StepCounts)}
    return StepCounts(**(values | changes))


def _sums(flow: float, count: float, stop: float, stop_count: float) -> torch.Tensor:
    scalar = torch.tensor
    sums = LossSums(
        flow_sum=scalar(flow),
        flow_count=scalar(count),
        modality_sum=scalar([flow, 0.0, 0.0]),
        modality_count=scalar([count, 0.0, 0.0]),
        bin_sum=torch.zeros(10),
        bin_count=torch.zeros(10),
        stop_sum=scalar(stop),
        stop_count=scalar(stop_count),
        duration_sum=scalar(3.0),
        duration_count=scalar(6.0),
    )
    vector = sums.to_vector()
    assert vector.shape == (VECTOR_LENGTH,)
    return vector


FREE = Costs(tiny_config(), None)


def test_a_window_weighs_steps_by_what_they_hold():
    window = Window()
    window.add(_sums(10.0, 10.0, 2.0, 4.0), _counts(positions=50, row_positions=100), 1.0, 0.5)
    window.add(_sums(90.0, 30.0, 2.0, 4.0), _counts(positions=70, row_positions=100), 3.0, 1.5)
    metrics = window.metrics(FREE, stop_weight=0.1)
    assert metrics["loss/flow"] == pytest.approx(2.5), "100 over 40, not the mean of 1 and 3"
    assert metrics["loss/stop"] == pytest.approx(0.5)
    assert metrics["loss/duration"] == pytest.approx(0.5)
    assert metrics["loss/total"] == pytest.approx(2.6), "stop and pace weigh a tenth"
    assert metrics[f"loss/flow/{MODALITIES[0]}"] == pytest.approx(2.5)
    assert f"loss/flow/{MODALITIES[1]}" not in metrics, "what was not seen has no loss"
    assert metrics["grad_norm"] == 2.0
    assert metrics["rate/seconds_per_step"] == 1.0
    assert metrics["rate/positions_per_s"] == 60.0
    assert metrics["data/useful_share"] == 0.6
    assert "rate/mfu" not in metrics, "unknown devices have no utilisation"


def test_counts_survive_the_sum_over_workers():
    one = _counts(flow_count=3, stop_count=1)
    two = _counts(flow_count=4, documents=2)
    both = StepCounts.from_vector(one.to_vector() + two.to_vector())
    assert both == _counts(flow_count=7, stop_count=1, documents=2)


def test_utilisation_is_the_work_of_the_documents_over_the_peak():
    config = tiny_config()
    assert Costs.of(config, torch.device("cpu"), 1).peak is None
    documents = [
        random_document(config, 0, modality="speech", num_copies=2),
        random_document(config, 1, num_text=3),
    ]
    step = StepBatch(0, [pack([[d]], config, 64) for d in documents], 2, 0, 5 + 36 + 3 + 24)
    counts = StepCounts.of(step, config)
    assert counts.row_positions == 128
    assert counts.expert_positions == 5 + 36
    held = [
        document_counts(config, 5, 12, 2, uses_expert=True),
        document_counts(config, 3, 12, 1, uses_expert=False),
    ]
    expected = sum(training_flops(config, one) for one in held)
    known = Costs(config, peak=1e9)
    assert known.utilisation(counts, 2.0) == pytest.approx(expected / 2e9)
    assert known.utilisation(counts, 0.0) is None


def test_the_log_drops_what_a_lost_attempt_wrote(tmp_path):
    folder = Folder.at(tmp_path)
    log = MetricsLog(folder, 0)
    for step in (10, 20, 30):
        log.add(step, {"loss/total": 1.0 / step, "broken": float("nan")})
    log.write()
    resumed = MetricsLog(folder, 20)
    resumed.add(30, {"loss/total": 9.0})
    resumed.write()
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[-1]["loss/total"] == 9.0
    assert "broken" not in lines[0], "JSON has no NaN"


def test_metrics_of_an_earlier_step_join_its_line(tmp_path):
    log = MetricsLog(Folder.at(tmp_path), 0)
    for step in (10, 20):
        log.add(step, {"loss/total": 1.0})
    log.add(10, {"validation/loss/total": 2.0})
    log.add(15, {"validation/loss/total": 3.0})
    assert [entry["step"] for entry in log.entries] == [10, 15, 20]
    assert log.entries[0] == {"step": 10, "loss/total": 1.0, "validation/loss/total": 2.0}
    assert log.validation_losses() == {10: 2.0, 15: 3.0}
