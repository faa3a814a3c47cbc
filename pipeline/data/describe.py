"""clips/ + measured attributes -> descriptions/: several description-style texts of every clip.

The texts are composed from the facts of the clip. If the recipe asks for it, a captioner adds a
caption first, and a language model rewrites some of the texts afterwards; a text without a usable
completion stays as it was composed.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import pyarrow as pa
from pydantic import Field

from pipeline.acoustics.attributes import speaking_rate
from pipeline.clip_tables import ClipTables
from pipeline.data.descriptions.facts import facts_of
from pipeline.data.descriptions.templates import GRAMMAR_VERSION, describe_clip
from pipeline.data.descriptions.variety import measure_folder
from pipeline.data.rejects import Reason, reject_clip
from pipeline.data.rewriting.cache import ReplyCache, Usage
from pipeline.data.rewriting.chat import ChatModel, Unanswered
from pipeline.data.rewriting.endpoint import ChatEndpoint, read_key
from pipeline.data.rewriting.local import LocalChatModel, local_model_name
from pipeline.data.rewriting.rewriter import FELL_BACK, Draft, caption, rewrite
from pipeline.data.rewriting.settings import (
    CaptionSettings,
    EndpointSettings,
    LocalModelSettings,
    RewriteSettings,
)
from pipeline.data.schema import DESCRIPTIONS
from pipeline.data.units.commit_log import Record
from pipeline.data.units.stage import (
    Resources,
    Unit,
    UnitOutput,
    files_of,
    hours_key,
    run_stage,
)
from pipeline.errors import PipelineError, TooManyFallbacksError
from pipeline.settings import Settings, digest_of
from pipeline.storage import Folder, table_bytes

logger = logging.getLogger(__name__)

STAGE = "describe"
_WORDING = {"texts_per_clip", "seed", "max_words", "grammar_version"}
_USAGE = "usage"
_MANY_FALLBACKS = 0.1


class DescribeSettings(Settings):
    """Settings of `describe`."""

    texts_per_clip: int = Field(default=4, ge=1)
    """Descriptions of a clip; training draws one at a time."""
    seed: int = 0
    """Seed of the wording; another seed words the same facts differently."""
    max_words: int = Field(default=80, ge=1)
    """Longest description; captions of the corpus beyond it are cut at a sentence."""
    grammar_version: int = GRAMMAR_VERSION
    """Version of the grammar. It is part of the settings digest: another one writes texts anew."""
    rewrite: RewriteSettings = RewriteSettings()
    """Rewriting by a language model."""
    caption: CaptionSettings = CaptionSettings()
    """Captions by a captioner."""
    endpoint: EndpointSettings = EndpointSettings()
    """Endpoint of the rewriting model, and of the captioner unless it has its own."""
    caption_endpoint: EndpointSettings | None = None
    """Endpoint of the captioner, if it differs from `endpoint`."""
    local: LocalModelSettings = LocalModelSettings()
    """How a model from a local folder is run."""
    cache: str | None = None
    """Folder or URI of the cached completions; None is `<output>-cache`. With it, running again
    sends no prompt a second time."""
    redo_unanswered: bool = False
    """Whether a complete stage redoes the units in which prompts had no completion."""
    max_fallback_share: float = Field(default=1.0, ge=0, le=1)
    """Share of prompts without a usable completion above which the stage fails."""
    max_reject_share: float = Field(default=0.5, ge=0, le=1)
    """Share of rejected clips, those without latents included, above which the stage fails."""
    resources: Resources = Resources()
    """Workers."""

    @property
    def asks_models(self) -> bool:
        """Whether a language model or a captioner is used."""
        return self.rewrite.source != "none" or self.caption.source != "none"


def describe(
    clips: Folder, latents: Folder, output: Folder, settings: DescribeSettings
) -> dict[str, Any]:
    """Describe every clip that has latents; audio is read only to be captioned.

    Returns:
        The card.

    Raises:
        IncompleteError: If an input is not complete.
        PipelineError: If the latents were made of other clips, a key is not set, or an endpoint
            refuses key or model.
        TooManyFallbacksError: With the reasons and their counts; what is done is kept.
        ValueError: If a local model cannot be read.
    """
    digests = {"clips": clips.digest, "latents": latents.digest}
    if latents.card()["inputs"]["clips"] != digests["clips"]:
        raise PipelineError(f"{latents.uri} was made of other clips than those given; run encode")
    _check_keys(settings)
    name = settings.rewrite.model
    if settings.rewrite.source == "local":
        name = digests["rewrite_model"] = local_model_name(name)
    cache = Folder.at(settings.cache or f"{output.uri}-cache")
    usage = cache.child(_USAGE, digest_of(output.uri)[:16])
    units = list(_plan(clips, latents, digests.get("rewrite_model", "")))
    for left in usage.files():
        usage.delete(left)
    is_over = output.is_complete and not settings.redo_unanswered
    card = run_stage(
        output,
        stage=STAGE,
        settings=settings,
        inputs=digests,
        units=units,
        worker=DescribeWorker,
        worker_kwargs={
            "clips": clips,
            "latents": latents,
            "settings": settings,
            "model_name": name,
            "cache": cache,
            "usage": usage,
        },
        resources=settings.resources,
        max_reject_share=settings.max_reject_share,
        card_extra=_card_extra(output, settings.max_fallback_share),
        redo=None if is_over else _is_unanswered,
    )
    if settings.asks_models:
        _log_usage(usage, card)
    return card


def _check_keys(settings: DescribeSettings) -> None:
    if settings.rewrite.source == "endpoint":
        read_key(settings.endpoint)
    if settings.caption.source == "endpoint":
        read_key(settings.caption_endpoint or settings.endpoint)


def _plan(clips: Folder, latents: Folder, model: str) -> Iterator[Unit]:
    latent_files = latents.file_digests("parts/")
    for part, digest in ClipTables.of(clips).digests().items():
        inputs = [digest, latent_files[f"parts/latents-{part}.parquet"]]
        yield Unit(part, digest_of([*inputs, model] if model else inputs), {"part": part})


def _is_unanswered(record: dict[str, Any]) -> bool:
    reasons = set(Unanswered)
    return any(key.rpartition("/")[2] in reasons for key in record["totals"] if FELL_BACK in key)


def _card_extra(output: Folder, max_share: float) -> Callable[[Iterable[Record]], dict[str, Any]]:
    def extra(records: Iterable[Record]) -> dict[str, Any]:
        """Use of the models and variety of the texts, for the card."""
        outcomes = _outcomes(records)
        _check_fallbacks(outcomes, max_share)
        num_clips = sum(record["written"] for record in records)
        return ({"models": outcomes} if outcomes else {}) | {
            "variety": measure_folder(output, files_of(records, "parts/"), num_clips)
        }

    return extra


def _outcomes(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """What became of the questions to models, by kind of question."""
    counts: Counter[str] = Counter()
    for record in records:
        asked = {k: round(v) for k, v in record["totals"].items() if not k.startswith("hours/")}
        counts.update(asked)
    outcomes: dict[str, dict[str, int]] = {}
    for key, value in sorted(counts.items()):
        kind, _, what = key.partition("/")
        outcomes.setdefault(kind, {})[what.replace(f"{FELL_BACK}/", f"{FELL_BACK}: ")] = value
    return outcomes


def _check_fallbacks(outcomes: dict[str, dict[str, int]], max_share: float) -> None:
    total = sum(sum(table.values()) for table in outcomes.values())
    lost = total - sum(table.get("used", 0) for table in outcomes.values())
    share = lost / total if total else 0.0
    text = "; ".join(
        f"{kind}: " + ", ".join(f"{what} {n}" for what, n in table.items())
        for kind, table in outcomes.items()
    )
    if share > max_share:
        raise TooManyFallbacksError(
            f"{STAGE}: {lost} of {total} questions to models without a usable answer "
            f"({share:.1%}, limit {max_share:.1%}): {text}; mend model, endpoint or prompt and "
            "run again (answers are kept, what had none is asked again), or raise "
            "max_fallback_share"
        )
    if share > _MANY_FALLBACKS:
        logger.warning("%s: %.1f %% of the answers were not used: %s", STAGE, 100 * share, text)


def _log_usage(usage: Folder, card: dict[str, Any]) -> None:
    done = [usage.read_json(name) for name in usage.files(".json")]
    asked, cached = (sum(record[name] for record in done) for name in ("asked", "cached"))
    logger.info("%s: %d questions asked, %d answers out of the cache", STAGE, asked, cached)


class DescribeWorker:
    """Describes the clips of one part.

    Args:
        clips: Directory that ingest wrote.
        latents: Directory that encode wrote.
        settings: Settings of the stage.
        model_name: Name of the rewriting model in the cache.
        cache: Folder of the cached completions.
        usage: Folder in which each unit records how many prompts it sent.
    """

    def __init__(
        self,
        clips: Folder,
        latents: Folder,
        settings: DescribeSettings,
        model_name: str,
        cache: Folder,
        usage: Folder,
    ) -> None:
        self._clips = ClipTables.of(clips)
        self._latents, self._settings = latents, settings
        self._model_name = model_name
        self._cache, self._usage = ReplyCache(cache), usage
        self._wording = digest_of(settings.model_dump(include=_WORDING))
        self._recipe = self._wording
        if settings.asks_models:
            asked = settings.model_dump(mode="json", include={"rewrite", "caption"})
            self._recipe = digest_of([self._wording, model_name, asked])

    def process(self, unit: Unit) -> UnitOutput:
        """Texts of a part."""
        part = unit.payload["part"]
        table = self._latents.read_table(f"parts/latents-{part}.parquet", ["clip_id", "attributes"])
        measured = {row["clip_id"]: json.loads(row["attributes"]) for row in table.to_pylist()}
        clips = self._clips.read(part).to_pylist()
        lacking = "the clip has no latents; the rejects of encode say why"
        rejects = [
            reject_clip(clip, Reason.NO_LATENTS, lacking, STAGE)
            for clip in clips
            if clip["clip_id"] not in measured
        ]
        counts = Counter[str]()
        known = [clip for clip in clips if clip["clip_id"] in measured]
        usage = Usage(beat=unit.beat)
        captions = self._captions(known, usage, counts)
        drafts: list[Draft] = []
        for clip in known:
            unit.beat()
            draft = self._draft(clip, measured[clip["clip_id"]], captions.get(clip["clip_id"]))
            if draft.texts:
                drafts.append(draft)
            else:
                detail = "no caption, tag, title or measurement to put into words"
                rejects.append(reject_clip(clip, Reason.NO_DESCRIPTION, detail, STAGE))
        self._rewrite(drafts, usage, counts)
        if self._settings.asks_models:
            self._usage.write_json(f"{unit.name}.json", usage.counts)
        totals: dict[str, float] = {key: float(count) for key, count in counts.items()}
        for draft in drafts:
            key = hours_key(draft.clip["modality"], draft.clip["language"])
            totals[key] = totals.get(key, 0.0) + draft.clip["duration_s"] / 3600
        rows = pa.Table.from_pylist([self._row(draft) for draft in drafts], schema=DESCRIPTIONS)
        files = {f"parts/part-{part}.parquet": table_bytes(rows)}
        return UnitOutput(files, len(clips), len(drafts), rejects, totals)

    def _draft(self, clip: dict[str, Any], measured: dict[str, float], heard: str | None) -> Draft:
        attributes = dict(measured)
        rate = speaking_rate(clip["transcript"] or "", attributes.get("active_s", 0.0))
        if rate is not None:
            attributes["speaking_rate_syllables_per_s"] = rate
        spoken_of = clip if heard is None else clip | {"captions": [*clip["captions"], heard]}
        facts = facts_of(spoken_of, attributes, max_words=self._settings.max_words)
        seed = f"{clip['clip_id']}\n{self._wording}"
        texts, source = describe_clip(
            facts,
            seed=seed,
            count=self._settings.texts_per_clip,
            max_words=self._settings.max_words,
        )
        if source == "caption" and not clip["captions"]:
            source = "audio_caption"
        return Draft(clip, facts, texts, source, seed)

    def _captions(
        self, clips: list[dict[str, Any]], usage: Usage, counts: Counter[str]
    ) -> dict[str, str]:
        if self._settings.caption.source == "none":
            return {}
        captions, outcomes = caption(
            clips,
            self._listener,
            self._cache,
            self._settings.caption,
            max_words=self._settings.max_words,
            usage=usage,
        )
        counts.update(outcomes)
        return captions

    def _rewrite(self, drafts: list[Draft], usage: Usage, counts: Counter[str]) -> None:
        if self._settings.rewrite.source == "none":
            return
        outcomes = rewrite(
            drafts,
            self._writer,
            self._cache,
            self._settings.rewrite,
            max_words=self._settings.max_words,
            usage=usage,
        )
        counts.update(outcomes)

    @cached_property
    def _writer(self) -> ChatModel:
        settings = self._settings
        if settings.rewrite.source == "local":
            return LocalChatModel(settings.rewrite.model, settings.local, self._model_name)
        return ChatEndpoint(settings.endpoint, self._model_name, self._share)

    @cached_property
    def _listener(self) -> ChatModel:
        settings = self._settings
        reached = settings.caption_endpoint or settings.endpoint
        return ChatEndpoint(reached, settings.caption.model, self._share)

    @property
    def _share(self) -> float:
        return 1 / max(1, self._settings.resources.workers)

    def _row(self, draft: Draft) -> dict[str, Any]:
        return {
            "clip_id": draft.clip["clip_id"],
            "descriptions": draft.texts,
            "transcript": draft.clip["transcript"],
            "language": draft.clip["language"],
            "modality": draft.clip["modality"],
            "source": draft.source,
            "recipe_digest": self._recipe,
        }
