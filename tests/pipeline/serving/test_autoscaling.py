"""Replicas by queued audio, inside of Ray Serve's own wrapper for policies."""

from __future__ import annotations

from typing import Any

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from model.bundle.limits import Limits
from pipeline.serving.autoscaling import QUEUED_AUDIO, QueuedAudioPolicy, expected_audio_s
from pipeline.serving.replica import build
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import ServeSettings

DEPLOYMENT = DeploymentID("Sampler", "app")


def context(
    queued_s: list[float], *, num_requests: float = 0, num_waiting: float = 0, **more: Any
) -> AutoscalingContext:
    replicas = [ReplicaID(str(index), DEPLOYMENT) for index in range(len(queued_s))]
    fields: dict[str, Any] = {
        "deployment_id": DEPLOYMENT,
        "deployment_name": "Sampler",
        "app_name": "app",
        "current_num_replicas": len(queued_s),
        "target_num_replicas": len(queued_s),
        "running_replicas": replicas,
        "total_num_requests": num_requests,
        "total_queued_requests": num_waiting,
        "aggregated_metrics": {QUEUED_AUDIO: dict(zip(replicas, queued_s, strict=True))},
        "raw_metrics": {},
        "capacity_adjusted_min_replicas": 0,
        "capacity_adjusted_max_replicas": 8,
        "policy_state": {},
        "last_scale_up_time": None,
        "last_scale_down_time": None,
        "current_time": 0.0,
        "config": None,
        **more,
    }
    return AutoscalingContext(**fields)


@pytest.mark.parametrize(
    ("queued_s", "num_requests", "num_waiting", "expected"),
    [
        ([0.0], 0, 0, 0),
        ([0.0], 1, 0, 1),  # the last chunk is on its way
        ([90.0], 3, 0, 2),
        ([100.0, 101.0], 10, 0, 4),
        ([60.0], 3, 0, 1),
        ([60.0], 12, 9, 4),  # nine waiting requests of 20 s each
        ([], 30, 30, 3),  # nothing is known of them: 5 s each
    ],
)
def test_replicas_follow_the_audio(
    queued_s: list[float], num_requests: float, num_waiting: float, expected: int
) -> None:
    policy = QueuedAudioPolicy(target_audio_s=60)
    situation = context(queued_s, num_requests=num_requests, num_waiting=num_waiting)
    assert policy(situation) == (expected, {})


def test_serve_goes_up_down_and_to_zero_with_it() -> None:
    config = AutoscalingConfig(
        min_replicas=0, max_replicas=2, upscale_delay_s=0, downscale_delay_s=0
    )
    policy = _apply_autoscaling_config(QueuedAudioPolicy(target_audio_s=60))
    first, _ = policy(context([], num_requests=1, num_waiting=1, config=config))
    assert first == 1
    more, _ = policy(context([100.0], num_requests=9, config=config))
    assert more == 2
    one, _ = policy(context([0.0, 0.0], config=config))
    assert one == 1  # Serve goes to none from one alone
    none, _ = policy(context([0.0], config=config))
    assert none == 0


def test_the_deployment_takes_the_policy_where_a_target_is_set() -> None:
    settings = ServeSettings.model_validate({"device": "cpu", "autoscale": {"target_audio_s": 90}})
    ours = _sampler_policy(settings)
    assert ours.policy_function == "pipeline.serving.autoscaling:QueuedAudioPolicy"
    assert ours.policy_kwargs == {"target_audio_s": 90}
    assert "QueuedAudio" not in str(_sampler_policy(ServeSettings(device="cpu")).policy_function)


def _sampler_policy(settings: ServeSettings) -> Any:
    application = build(settings, {})
    sampler = application._bound_deployment.init_args[0]
    return sampler._bound_deployment._deployment_config.autoscaling_config.policy


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (AudioJob(description="x", duration_s=7.5), 7.5),
        (AudioJob(description="x"), 5.0),
        (AudioJob(description="x", transcript="a" * 220), 15.0),
        (AudioJob(description="x", transcript="a" * 220, speed=2.0), 7.5),
        (AudioJob(description="x", transcript="a" * 4000), 120.0),
    ],
)
def test_the_audio_of_a_job_is_estimated(job: AudioJob, expected: float) -> None:
    assert expected_audio_s(job, Limits()) == pytest.approx(expected)
