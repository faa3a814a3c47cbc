"""Settings of rewriting and captioning: models, prompts, endpoints and their limits."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from pipeline.settings import Settings

PROMPT_VERSION = 1
"""Raised when the questions or the checks of the answers change, so that texts are done again."""


class EndpointSettings(Settings):
    """How an OpenAI-compatible endpoint is reached; changing it redoes no text."""

    base_url: str = "http://127.0.0.1:8000/v1"
    """`/chat/completions` is put behind it."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, on every worker; None sends none.
    The key itself is never a setting, and is neither saved nor logged."""
    requests_at_once: int = Field(default=8, ge=1)
    """Open requests of one worker."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Limit for all workers together; None does not limit."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Tokens of questions and answers, all workers together; None does not limit."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Longest wait for one answer."""
    max_attempts: int = Field(default=5, ge=1)
    """Tries of a question that met a timeout, a lost connection, 429 or 5xx."""
    max_wait_s: float = Field(default=60.0, gt=0)
    """Longest pause between two tries, seconds; longer ones that the endpoint asks for are cut."""
    give_up_after: int = Field(default=20, ge=1)
    """Questions in a row without an answer before the endpoint counts as down."""
    down_for_s: float = Field(default=60.0, gt=0)
    """How long an endpoint that is down is not asked; templates stand in meanwhile."""

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// address")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an address holds no key: name its environment variable, api_key_env")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _check_api_key_env(cls, name: str | None) -> str | None:
        if name is not None and not (name.isascii() and name.isidentifier()):
            raise ValueError("give the name of an environment variable, not a key")
        return name


class LocalModelSettings(Settings):
    """How a model from a folder is run; changing it redoes no text."""

    device: str = "cpu"
    """Torch device of every worker."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto takes what the folder says."""
    batch_size: int = Field(default=8, ge=1)
    """Texts written together."""


class RewriteSettings(Settings):
    """Rewriting of the composed texts by a language model."""

    source: Literal["none", "endpoint", "local"] = "none"
    """Source of completions: an endpoint or a model from a local folder; none rewrites nothing."""
    model: str = ""
    """Name of the model at the endpoint, or its local folder."""
    texts_per_clip: int = Field(default=2, ge=1)
    """Number of texts of a clip that are rewritten, its last ones; the others stay as they are."""
    language: Literal["en", "clip"] = "en"
    """Language of the texts: English, or the language that is spoken or sung in the clip."""
    temperature: float = Field(default=0.8, ge=0)
    """Sampling temperature; 0 is greedy."""
    max_tokens: int = Field(default=200, ge=1)
    """Longest completion, tokens; one that is cut off is not used."""
    min_words: int = Field(default=3, ge=1)
    """Shortest text."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body, such as `chat_template_kwargs`."""
    prompt_version: int = PROMPT_VERSION
    """Version of the prompts; recorded, so that new ones redo the texts."""

    @model_validator(mode="after")
    def _check_model(self) -> RewriteSettings:
        if self.source != "none" and not self.model:
            raise ValueError(f"rewriting by {self.source} needs `model`")
        return self


class CaptionSettings(Settings):
    """Captions by a captioner; the only part of describe that reads audio."""

    source: Literal["none", "endpoint"] = "none"
    """Source of captions: an endpoint that accepts `input_audio`, or none."""
    model: str = ""
    """Name of the captioner at the endpoint."""
    modalities: tuple[Literal["speech", "sound", "music"], ...] = ("sound", "music")
    """Modalities that are captioned."""
    only_missing: bool = True
    """Whether only clips without captions of their corpus are captioned."""
    max_s: float = Field(default=30.0, gt=0)
    """Longest audio that is sent, seconds; of a longer clip, its beginning is sent."""
    sample_rate: int = Field(default=16_000, ge=8_000)
    """Rate of the audio sent, mono, Hz."""
    temperature: float = Field(default=0.2, ge=0)
    """Sampling temperature; 0 is greedy."""
    max_tokens: int = Field(default=200, ge=1)
    """Longest completion, tokens; one that is cut off is not used."""
    min_words: int = Field(default=3, ge=1)
    """Shortest caption."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body."""
    prompt_version: int = PROMPT_VERSION
    """Version of the prompt; recorded, so that a new one redoes the captions."""

    @model_validator(mode="after")
    def _check_model(self) -> CaptionSettings:
        if self.source != "none" and not self.model:
            raise ValueError("captioning needs `model`, its name at the endpoint")
        return self
