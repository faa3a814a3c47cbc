from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from model.audiocalm import AudioCALM
from model.config import MODALITIES
from model.objective import VECTOR_LENGTH, LossSums
from pipeline.storage import Folder
from pipeline.training.metrics import METRICS, Costs, MetricsLog, StepCounts, Window
from tests.factories.model import tiny_config


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
    )
    vector = sums.to_vector()
    assert vector.shape == (VECTOR_LENGTH,)
    return vector


FREE = Costs(0.0, 0.0, None)


def test_a_window_weighs_steps_by_what_they_hold():
    window = Window()
    window.add(_sums(10.0, 10.0, 2.0, 4.0), _counts(positions=50, row_positions=100), 1.0, 0.5)
    window.add(_sums(90.0, 30.0, 2.0, 4.0), _counts(positions=70, row_positions=100), 3.0, 1.5)
    metrics = window.metrics(FREE, stop_weight=0.1)
    assert metrics["loss/flow"] == pytest.approx(2.5), "100 over 40, not the mean of 1 and 3"
    assert metrics["loss/stop"] == pytest.approx(0.5)
    assert metrics["loss/total"] == pytest.approx(2.55)
    assert metrics[f"loss/flow/{MODALITIES[0]}"] == pytest.approx(2.5)
    assert f"loss/flow/{MODALITIES[1]}" not in metrics, "what was not seen has no loss"
    assert metrics["grad_norm"] == 2.0
    assert metrics["rate/seconds_per_step"] == 1.0
    assert metrics["rate/positions_per_s"] == 60.0
    assert metrics["data/useful_share"] == 0.6
    assert "rate/mfu" not in metrics, "unknown devices have no utilisation"


def test_counts_survive_the_sum_over_workers():
    one = _counts(flow_count=3, stop_requests=1)
    two = _counts(flow_count=4, documents=2)
    both = StepCounts.from_vector(one.to_vector() + two.to_vector())
    assert both == _counts(flow_count=7, stop_requests=1, documents=2)


def test_utilisation_counts_six_operations_a_weight_and_position():
    model = AudioCALM(tiny_config())
    costs = Costs.of(model, torch.device("cpu"), 1)
    assert costs.peak is None
    inner = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and "embed_tokens" not in name and "expert" not in name
    )
    assert costs.per_position == 6 * inner
    assert costs.per_expert_position > 0
    known = dataclasses.replace(costs, peak=1e9)
    counts = _counts(positions=100, expert_positions=50)
    expected = (100 * costs.per_position + 50 * costs.per_expert_position) / (2.0 * 1e9)
    assert known.utilisation(counts, 2.0) == pytest.approx(expected)


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
