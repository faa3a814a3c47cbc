"""The deployments on Ray Serve: an ingress that speaks HTTP, and replicas that hold the model.

    client -> proxy -> Ingress (FastAPI, no GPU) -> Sampler (one bundle, many requests a step)

Where requests are held back: a replica takes `max_batch + max_waiting`; beyond that they wait in
the router, up to `max_queued_requests`; beyond that they are refused with 429 and Retry-After,
by the ingress when its replicas are full and by the proxy when the ingress itself is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from pipeline.serving.admission import load_policy
from pipeline.serving.answer import Item, Refusal
from pipeline.serving.app import create_app
from pipeline.serving.autoscaling import QUEUED_AUDIO, QueuedAudioPolicy, expected_audio_s
from pipeline.serving.engine import BatchEngine
from pipeline.serving.errors import NotReadyError
from pipeline.serving.keys import key_digests
from pipeline.serving.live import LiveSettings
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import Service
from pipeline.serving.uploads import Embed

logger = logging.getLogger(__name__)

SAMPLER = "Sampler"
INGRESS = "Ingress"
_READY_TIMEOUT_S = 5.0
_INGRESS_SLACK = 16
"""Concurrent requests of an ingress that are not audio: pages, lists, probes."""


class Sampler:
    """One bundle on one device, shared by many requests.

    Args:
        settings: `ServeSettings` as plain values.
        voices: Speaker embeddings by voice name, beyond those of the bundle.
    """

    def __init__(self, settings: dict[str, Any], voices: dict[str, list[float]]) -> None:
        # Here, so that the ingress starts without torch.
        from pipeline.serving.metrics import SamplerMetrics
        from pipeline.serving.worker import load_worker

        resolved = ServeSettings.model_validate(settings)
        self._live = LiveSettings(resolved)
        self._worker = load_worker(resolved, voices, has_gpu=bool(ray.get_gpu_ids()))
        self._engine = BatchEngine(self._worker, resolved.batch)
        self._metrics = SamplerMetrics()
        self._limits = resolved.limits.limits()
        self._queued_audio_s: dict[int, float] = {}
        self._calls = itertools.count()
        logger.info("bundle %s is ready", self._worker.service().digest[:12])

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Change settings while requests run; those that run keep what they began with.

        Raises:
            SettingsError: If a setting needs a restart or cannot be used; nothing changes then.
        """
        settings = self._live.changed(user_config)
        self._worker.reconfigure(settings)
        self._live.now, self._limits = settings, settings.limits.limits()

    async def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        """Audio of one job; cancelling the call frees its slot at the next step."""
        answer = self._metrics.watched(self._engine.generate(job), self._engine.stats)
        call = next(self._calls)
        self._queued_audio_s[call] = expected_audio_s(job, self._limits)
        try:
            async with aclosing(answer):  # type: ignore[type-var]  # an async generator
                async for item in answer:
                    if isinstance(item, bytes):
                        made_s = self._worker.layout.duration_s(len(item))
                        self._queued_audio_s[call] = max(0.0, self._queued_audio_s[call] - made_s)
                    yield item
        finally:
            del self._queued_audio_s[call]

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Metric of the autoscaling policy; Serve calls it if `autoscale.target_audio_s` is set."""
        return {QUEUED_AUDIO: sum(self._queued_audio_s.values())}

    async def service(self) -> Service:
        """Public facts about the model."""
        return self._worker.service()

    async def stats(self) -> dict[str, int]:
        """Counters of this replica."""
        return self._engine.stats()

    def check_health(self) -> None:
        """Raise if the engine is broken: Serve then restarts the replica."""
        self._engine.check_health()


class HandleEngine:
    """The replicas of the sampler, as the ingress sees them.

    `service` is queued like a request, so full replicas do not answer it. They count as ready while
    they send audio, and the last known facts are returned.

    Args:
        sampler: Handle of the deployment.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self, sampler: DeploymentHandle, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = sampler.options(method_name="service")
        self._generate = sampler.options(method_name="generate", stream=True)
        self._clock = clock
        self._known: Service | None = None
        self._heard_at = -_READY_TIMEOUT_S

    async def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        """Audio of one job from whichever replica has room; leaving early cancels it there.

        Raises:
            RayActorError: If the replica died after the first item.
        """
        response = self._generate.remote(job)
        is_over = has_begun = False
        try:
            async for item in response:
                self._heard_at = self._clock()
                has_begun = True
                yield item
            is_over = True
        except BackPressureError as error:
            is_over = True
            logger.info("a request was refused: %s", error)
            yield Refusal(429, "all replicas are busy; try again")
        except DeploymentUnavailableError as error:
            is_over = True
            logger.warning("a request was refused: %s", error)
            yield Refusal(503, "no replica can serve; try again")
        except RayActorError:
            is_over = True
            if has_begun:
                raise
            logger.exception("a replica died before the first audio of a request")
            yield Refusal(503, "the replica died before the first audio; try again")
        finally:
            # Cancelling a call that was never assigned raises its error once more.
            if not is_over:
                response.cancel()

    async def service(self) -> Service:
        """Public facts about the model, from any replica.

        Raises:
            NotReadyError: If no replica answers in time or sends audio, or the chosen one died.
        """
        asked_at = self._clock()
        try:
            response = self._service.remote()
            facts: Service = await asyncio.wait_for(response, _READY_TIMEOUT_S)
        except TimeoutError as error:
            reason, cause = f"no replica answered in {_READY_TIMEOUT_S:g} s", error
        except (BackPressureError, DeploymentUnavailableError) as error:
            logger.info("the replicas were not asked: %s", error)
            reason, cause = "no replica has room; try again", error
        except RayActorError as error:
            raise NotReadyError("the replica that was asked died; try again") from error
        else:
            self._known = facts
            return facts
        if self._known is None or self._heard_at < asked_at - _READY_TIMEOUT_S:
            raise NotReadyError(reason) from cause
        return self._known


class Ingress:
    """HTTP in front of the replicas.

    Args:
        sampler: Handle of the replicas.
        settings: `ServeSettings` as plain values.
        key_digests: SHA-256 of each API key by its label.
        embed: Computes the speaker embedding of a recording; None accepts no uploads.
    """

    def __init__(
        self,
        sampler: DeploymentHandle,
        settings: dict[str, Any],
        key_digests: dict[str, str],
        embed: Embed | None,
    ) -> None:
        self._sampler = sampler
        self._live = LiveSettings(ServeSettings.model_validate(settings))
        self._key_digests, self._embed = key_digests, embed

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Change limits and defaults of later requests.

        Raises:
            SettingsError: If a setting needs a restart or cannot be used; nothing changes then.
        """
        self._live.now = self._live.changed(user_config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(
            HandleEngine(self._sampler),
            self._live,
            key_digests=self._key_digests,
            embed=self._embed,
        )


def build(
    settings: ServeSettings, voices: dict[str, list[float]], embed: Embed | None = None
) -> serve.Application:
    """The application that Ray Serve runs; API keys come from the environment of this process.

    Args:
        settings: The endpoint.
        voices: Speaker embeddings by voice name, beyond those of the bundle.
        embed: Computes the speaker embedding of a recording; None accepts no uploads.

    Raises:
        SettingsError: If the API keys cannot be read, or there is no such policy.
    """
    load_policy(settings.policy)  # before an ingress starts and fails
    digests = key_digests(os.environ)
    values = settings.model_dump(mode="json")
    sampler = _sampler_deployment(settings).bind(values, voices)
    return _ingress_deployment(settings).bind(sampler, values, digests, embed)


def _slots(settings: ServeSettings) -> int:
    """Requests that one replica holds: those it generates and those that wait inside it."""
    return settings.batch.max_batch + settings.batch.max_waiting


def _sampler_deployment(settings: ServeSettings) -> serve.Deployment:
    scale = settings.autoscale
    return serve.deployment(
        Sampler,
        name=SAMPLER,
        ray_actor_options={
            "num_cpus": settings.cpus_per_replica,
            "num_gpus": _gpus(settings),
        },
        max_ongoing_requests=_slots(settings),
        max_queued_requests=settings.max_queued_requests,
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.min_replicas,
            max_replicas=scale.max_replicas,
            target_ongoing_requests=scale.target_ongoing_requests,
            upscale_delay_s=scale.upscale_delay_s,
            downscale_delay_s=scale.downscale_delay_s,
            policy=_policy(scale.target_audio_s),
        ),
        graceful_shutdown_timeout_s=settings.timeout_s,
        max_surge_percent=settings.upgrade_surge_percent,
        max_constructor_retry_count=3,
    )


def _ingress_deployment(settings: ServeSettings) -> serve.Deployment:
    """HTTP in front of the replicas, with room for all that they and their queue can hold."""
    capacity = _slots(settings) * settings.autoscale.max_replicas + settings.max_queued_requests
    return serve.deployment(
        serve.ingress()(Ingress),
        name=INGRESS,
        num_replicas=settings.num_ingress,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=capacity + _INGRESS_SLACK,
        max_queued_requests=settings.max_queued_requests,
        backpressure_config=BackpressureConfig(
            status_code=429, retry_after_s=settings.retry_after_s
        ),
        graceful_shutdown_timeout_s=settings.timeout_s,
        max_surge_percent=100,
    )


def _policy(target_audio_s: float | None) -> AutoscalingPolicy:
    """Serve's own policy of ongoing requests, or ours of queued audio."""
    if target_audio_s is None:
        return AutoscalingPolicy()
    policy = f"{QueuedAudioPolicy.__module__}:{QueuedAudioPolicy.__name__}"
    return AutoscalingPolicy(
        policy_function=policy, policy_kwargs={"target_audio_s": target_audio_s}
    )


def _gpus(settings: ServeSettings) -> float:
    if settings.gpus_per_replica is not None:
        return settings.gpus_per_replica
    if settings.device == "cpu" or not ray.is_initialized():
        return 0.0
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
