"""Admission of requests: limits, uploaded voices, continuation and the operator's policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from model.bundle.limits import RequestError, check_request
from pipeline.errors import SettingsError
from pipeline.serving.errors import ApiError
from pipeline.serving.live import LiveSettings
from pipeline.serving.schemas import DEFAULT_VOICE, AudioJob, ContinuationBody
from pipeline.serving.uploads import Embed, continued
from pipeline.serving.voice_store import VoiceStore

_NO_CONTINUATION = "this endpoint continues no recordings; its operator sets continues_recordings"

Policy = Callable[[AudioJob, str | None], str | None]
"""Takes the job and the label of the API key (None without keys); returns the reason to refuse the
job, or None to allow it. Called from several threads at a time."""


class Admission:
    """Checks jobs before they reach the engine and fills in uploaded voices and recordings.

    Args:
        live: Limits, policy, and whether recordings are continued; the limits may change.
        store: Uploaded voices; None if the endpoint keeps none.
        embed: Computes the speaker embedding of a recording; None continues recordings without one.

    Raises:
        SettingsError: If the policy cannot be imported.
    """

    def __init__(self, live: LiveSettings, store: VoiceStore | None, embed: Embed | None) -> None:
        self._live = live
        self._policy = load_policy(live.now.policy)
        self._store, self._embed = store, embed

    async def admit(
        self, job: AudioJob, label: str | None, continuation: ContinuationBody | None = None
    ) -> AudioJob:
        """Check a job and complete it.

        Args:
            job: Job of the request body.
            label: Label of its API key.
            continuation: Recording that the speech continues.

        Raises:
            ApiError: If the job exceeds a limit, its recording cannot be used, or the policy
                refuses it.
        """
        try:
            check_request(job, self._live.now.limits.limits())
        except RequestError as error:
            raise ApiError(400, error.message, error.field) from error
        job = await self._voiced(job)
        if continuation is not None:
            if not self._live.now.continues_recordings:
                raise ApiError(403, _NO_CONTINUATION, "continuation")
            job = await asyncio.to_thread(continued, job, continuation, self._embed)
        if self._policy is not None:
            reason = await asyncio.to_thread(self._policy, job, label)
            if reason is not None:
                raise ApiError(403, reason, code="policy_violation")
        return job

    async def _voiced(self, job: AudioJob) -> AudioJob:
        """The job with the embedding of its voice if that voice was uploaded."""
        if self._store is None or job.voice == DEFAULT_VOICE:
            return job
        voice = await asyncio.to_thread(self._store.get, job.voice)
        if voice is None:
            return job
        return replace(job, voice=DEFAULT_VOICE, voice_embedding=voice.embedding)


def load_policy(path: str | None) -> Policy | None:
    """Import the policy function.

    Args:
        path: `package.module:function`; None is no policy.

    Raises:
        SettingsError: If the function cannot be imported.
    """
    if path is None:
        return None
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"policy {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise SettingsError(f"policy {path!r} is a {type(found).__name__}; name a function")
    policy: Policy = found
    return policy
