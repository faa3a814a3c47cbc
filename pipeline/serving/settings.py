"""Settings of the endpoint: model, batching, autoscaling, limits and access."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from model.bundle import DEFAULT_BUNDLE
from model.bundle.limits import DEFAULT_SPEECH_DESCRIPTION, MAX_TEXT_CHARS, Limits
from model.config import MAX_GUIDANCE_SCALE
from pipeline.serving.schemas import MAX_DURATION_S
from pipeline.settings import Settings


class LimitSettings(Settings):
    """Limits of one request; larger requests get 400."""

    max_description_chars: int = Field(
        default=Limits.max_description_chars, ge=1, le=MAX_TEXT_CHARS
    )
    """Characters of a description."""
    max_transcript_chars: int = Field(default=Limits.max_transcript_chars, ge=1, le=MAX_TEXT_CHARS)
    """Characters of a transcript."""
    min_duration_s: float = Field(default=Limits.min_duration_s, gt=0)
    """Shortest audio, seconds."""
    max_duration_s: float = Field(default=Limits.max_duration_s, gt=0, le=MAX_DURATION_S)
    """Longest audio without splitting, seconds; bounds the cache of a slot."""
    max_speech_s: float | None = Field(default=None, gt=0, le=MAX_DURATION_S)
    """Longest speech of one request, as its text is expected to take, seconds: text beyond 20 s is
    read sentence by sentence, and text beyond this gets 400. Null is `max_duration_s`; 300 takes
    the 4096 characters of OpenAI's endpoint."""
    max_flow_steps: int = Field(default=64, ge=1, le=Limits.max_flow_steps)
    """Solver steps for each block; time and cost grow with it."""
    max_guidance_scale: float = Field(
        default=Limits.max_guidance_scale, gt=0, le=MAX_GUIDANCE_SCALE
    )
    """Largest guidance scale."""

    def limits(self) -> Limits:
        """The limits as the model takes them."""
        return Limits(**self.model_dump())


class BatchSettings(Settings):
    """Batching in one replica."""

    max_batch: int = Field(default=16, ge=1, le=1024)
    """Slots: requests generated together, one block of each per step. Each holds a cache of up to
    `limits.max_duration_s`."""
    row_tokens: int | None = Field(default=None, ge=64)
    """Tokens of cache for the prefix and audio of one request. Memory for `max_batch` requests of
    that size, two rows each for guidance, is allocated at the start, and longer requests are
    refused. Null allocates as longer requests come; set it on a GPU to bound its memory."""
    cache_bytes: int | None = Field(default=None, ge=2**20)
    """Memory of the cache that requests share where `row_tokens` is null, bytes: the number of
    requests times the tokens of the longest. A request that does not fit beside those that run
    waits until some have ended, and later ones behind it; one that would not fit alone gets 400.
    While the cache grows it needs half as much again. Null is no limit but `max_batch`."""
    cuda_graphs: bool = False
    """Capture the passes of the model as CUDA graphs before the replica reports ready; needs
    `row_tokens`. Not yet run on a GPU. Ignored on a CPU."""
    max_waiting: int = Field(default=8, ge=0)
    """Requests that may wait in the replica for a slot; more wait in the router, where another
    replica can take them."""
    max_buffered: int = Field(default=16, ge=1)
    """Chunks a reader may lag behind before its request is paused; others are not."""
    max_opened: int = Field(default=4, ge=1)
    """Prompts read before one step; bounds how long arrivals hold up running requests."""
    stall_timeout_s: float = Field(default=120.0, gt=0)
    """A step that takes longer makes the replica unhealthy, and Serve restarts it, seconds."""

    @model_validator(mode="after")
    def _can_capture(self) -> BatchSettings:
        if self.cuda_graphs and self.row_tokens is None:
            raise ValueError("cuda_graphs needs row_tokens: captured memory cannot grow")
        if self.cache_bytes is not None and self.row_tokens is not None:
            raise ValueError("cache_bytes is for caches that grow; row_tokens sets a fixed size")
        return self


class AutoscaleSettings(Settings):
    """Autoscaling of replicas."""

    min_replicas: int = Field(default=1, ge=0)
    """Replicas kept without load; 0 lets the first request wait for a cold start."""
    max_replicas: int = Field(default=1, ge=1)
    """Maximum number of replicas."""
    target_ongoing_requests: float = Field(default=8.0, gt=0)
    """Requests each replica should have; must be below its slots, else it never scales. Not used
    with `target_audio_s`."""
    target_audio_s: float | None = Field(default=None, gt=0)
    """Seconds of audio, still to be made, that each replica should have before it, in place of
    `target_ongoing_requests`: a long text then counts more than a short sound. About what a full
    replica makes in `upscale_delay_s`. Null scales by requests."""
    upscale_delay_s: float = Field(default=10.0, ge=0)
    """Time that the load must last before replicas are added, seconds."""
    downscale_delay_s: float = Field(default=300.0, ge=0)
    """Time that the load must be low before replicas are removed, seconds."""

    @model_validator(mode="after")
    def _ordered(self) -> AutoscaleSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} exceeds max_replicas {self.max_replicas}"
            )
        return self


class ServeSettings(Settings):
    """The whole endpoint."""

    bundle: str = DEFAULT_BUNDLE
    """Bundle folder or URI, readable from every node, or the name of one that comes with the
    package."""
    voices: str | None = None
    """Folder of recordings, one voice each, named by file; None has the voices of the bundle."""
    speaker_encoder: str | None = None
    """Folder of the speaker encoder that the training data was embedded with; None is built in."""
    model_name: str = "audiocalm"
    """Name in /v1/models and in the `model` field of requests."""
    model_aliases: tuple[str, ...] = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
    """Other names of the model in /v1/models and in the `model` field, for clients that cannot
    change theirs."""
    voice_aliases: dict[str, str] = Field(default_factory=dict)
    """Further names of voices, each with the voice it stands for, as in `{"alloy": "ada"}`. The
    voices of OpenAI that are neither named here nor voices of the bundle stand for the voices of
    the bundle in turn, or for `default` where it has none."""
    sampling: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Sampling options where a request has none, by modality, beyond those of the bundle, as in
    `{"speech": {"num_flow_steps": 8}}`."""
    speech_description: str = DEFAULT_SPEECH_DESCRIPTION
    """Default description of speech if neither the request nor its voice has one."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; auto is the GPU of the replica if it has one, else the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the model's weights: auto is bf16 on a GPU, fp32 on a CPU. In fp32 the audio of a
    request does not depend on its neighbours beyond rounding in the fifth digit."""
    gpus_per_replica: float | None = Field(default=None, ge=0)
    """GPUs of one replica; a fraction shares one. Null is one where the cluster has any now."""
    cpus_per_replica: float = Field(default=1.0, ge=0)
    """Logical CPUs of one replica, and torch threads on a CPU."""
    upgrade_surge_percent: int = Field(default=100, ge=0, le=100)
    """Replicas started before old ones stop when the application is deployed anew, percent of
    those that run. 100 upgrades without a gap and needs resources for twice the replicas, until
    which the old ones serve; 0 stops old replicas first."""
    num_ingress: int = Field(default=1, ge=1)
    """Ingress replicas, which parse requests and frame audio; they need no GPU."""
    max_queued_requests: int = Field(default=64, ge=1)
    """Requests that may wait for a replica before new ones get 429. At least 1: a request passes
    the queue on its way even to a free replica."""
    retry_after_s: int = Field(default=2, ge=1)
    """Value of the Retry-After header of refusals, seconds."""
    max_body_bytes: int = Field(default=2**18, ge=1024)
    """Size of a request's body; a larger one gets 413 unread."""
    voice_store: str | None = None
    """Folder or URI, reachable from every ingress, where uploaded voices are stored as
    embeddings. Null refuses uploads."""
    max_voices: int = Field(default=1000, ge=1)
    """Maximum number of uploaded voices in `voice_store`."""
    max_upload_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Size of a body with a recording; a larger one gets 413 unread."""
    continues_recordings: bool = False
    """Whether requests may bring a recording for their speech to continue, which clones its voice;
    each needs a statement of consent. False refuses them with 403. The replica encodes the
    recording between two steps, which delays its other requests."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests for audio that each API key may send a minute to each ingress, all of them at once
    at most; more get 429. None is no limit. Keys stand in the environment variable
    AUDIOCALM_API_KEYS as `label:key,label:key`."""
    names_origin: bool = True
    """Whether MP3, Ogg, FLAC and WAV files say in their tags that a model made them, which one, and
    with which seed."""
    policy: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """Import path, `package.module:function`, of a check before every generation. It gets the job
    and the label of the API key, and returns the reason to refuse it with 403, or None. An error in
    it refuses with 500."""
    cors_origins: tuple[str, ...] = ()
    """Web pages of other origins that may call the endpoint, as in `https://example.org`; `*` is
    any. None by default: a browser then refuses them."""
    client_timeout_s: float = Field(default=60.0, gt=0)
    """Timeout for a client to send its body or to take a chunk of audio, seconds; the request ends
    after it."""
    request_timeout_s: float | None = Field(default=None, gt=0)
    """Timeout of one request, waiting included, seconds; null is a minute and twice
    the longest audio."""
    limits: LimitSettings = LimitSettings()
    """Limits of one request."""
    batch: BatchSettings = BatchSettings()
    """Batching in one replica."""
    autoscale: AutoscaleSettings = AutoscaleSettings()
    """Autoscaling of replicas."""

    @model_validator(mode="after")
    def _scales(self) -> ServeSettings:
        slots = self.batch.max_batch + self.batch.max_waiting
        if self.autoscale.target_ongoing_requests >= slots:
            raise ValueError(
                f"autoscale.target_ongoing_requests {self.autoscale.target_ongoing_requests} must "
                f"be below the {slots} requests of one replica, else it never scales"
            )
        return self

    @property
    def timeout_s(self) -> float:
        """Timeout of one request, waiting included, seconds."""
        limits = self.limits.limits()
        longest_s = max(limits.max_duration_s, limits.longest_speech_s)
        return self.request_timeout_s or 60.0 + 2 * longest_s
