"""clips/ -> latents/: posteriors, speaker embeddings and measured attributes of every clip."""

from __future__ import annotations

import base64
import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field

from model.codec.protocol import AudioCodec
from model.codec.registry import codec_digest, codec_importance, load_codec
from pipeline.acoustics.attributes import ATTRIBUTES_VERSION, measure
from pipeline.acoustics.speaker_models import load_speaker_encoder, speaker_encoder_digest
from pipeline.audio.files import AudioError, read_audio, resample, to_channels
from pipeline.clip_tables import ClipTables
from pipeline.data.latent_distribution import stored_distribution
from pipeline.data.rejects import Reason, reject_clip
from pipeline.data.schema import LATENTS, Reject
from pipeline.data.shards import JSON, LOG_STD, MEAN, clip_key, npy_bytes, tar_bytes
from pipeline.data.units.stage import (
    Resources,
    Unit,
    UnitOutput,
    files_of,
    hours_key,
    run_stage,
)
from pipeline.errors import OutOfMemoryError
from pipeline.faults import on_device
from pipeline.settings import Settings, digest_of
from pipeline.storage import Folder, table_bytes

logger = logging.getLogger(__name__)

STAGE = "encode"
COLUMNS = [
    "clip_id",
    "corpus",
    "uri",
    "modality",
    "start_s",
    "end_s",
    "language",
    "content_sha256",
]
"""Columns of `clips/` that latents depend on: a changed caption or transcript encodes nothing."""
_SILENCE_S = 2.0


class EncodeResources(Resources):
    """Resources of encoding. They change latents by rounding only, so a change redoes nothing."""

    max_batch_s: float = Field(default=60.0, gt=0)
    """Largest amount of audio in one codec batch, padding included, seconds."""
    max_batch_clips: int = Field(default=16, ge=1)
    """Largest number of clips in one codec batch."""
    window_s: float = Field(default=600.0, gt=0)
    """Decoded audio that is held at once, seconds; clips of similar length in it form batches."""
    decode_threads: int = Field(default=1, ge=1)
    """Number of clips that one worker decodes and measures at once; several keep a GPU busy."""


class EncodeSettings(Settings):
    """Settings of `encode`."""

    measures_attributes: bool = True
    """Whether level, pitch, tempo and the like are measured."""
    attributes_version: int = ATTRIBUTES_VERSION
    """Version of the measurements, part of the settings digest: another one measures again."""
    embeds_speakers: bool = True
    """Whether speech gets a speaker embedding."""
    speaker_encoder: str | None = None
    """Folder of a published x-vector model, reachable from every node; None is the built-in one."""
    max_reject_share: float = Field(default=0.1, ge=0, le=1)
    """Share of rejected clips above which the stage fails."""
    resources: EncodeResources = EncodeResources()
    """Workers; with a GPU each worker keeps the codec there."""


def encode(clips: Folder, output: Folder, settings: EncodeSettings, codec: str) -> dict[str, Any]:
    """Encode every clip once.

    Args:
        clips: Complete `clips/` directory.
        output: `latents/` directory.
        settings: How.
        codec: Folder of the codec.

    Returns:
        The card, with the codec's configuration and digest, one latent frame of silence, and how
        the latents are distributed.

    Raises:
        IncompleteError: If `clips` is not complete.
        ValueError: If the codec or the speaker encoder cannot be loaded.
        TooManyRejectsError: If too many clips cannot be encoded.
    """
    digest = codec_digest(codec)
    voices = speaker_encoder_digest(settings.speaker_encoder)
    inputs = {"clips": clips.digest, "codec": digest}
    return run_stage(
        output,
        stage=STAGE,
        settings=settings,
        inputs=inputs | ({"speaker_encoder": voices} if voices else {}),
        units=list(_plan(clips, [digest, voices])),
        worker=EncodeWorker,
        worker_kwargs={"clips": clips, "codec": codec, "settings": settings},
        resources=settings.resources,
        max_reject_share=settings.max_reject_share,
        card_extra=lambda records: {
            **_codec_facts(codec, digest),
            **_speaker_facts(settings),
            "latent_distribution": stored_distribution(output, files_of(records, "parts/")),
        },
    )


def _plan(clips: Folder, models: list[str]) -> Iterator[Unit]:
    tables = ClipTables.of(clips)
    for name in tables.digests():
        rows = tables.read(name, COLUMNS).to_pylist()
        yield Unit(name, digest_of({"models": models, "clips": rows}), {})


def _codec_facts(folder: str, digest: str) -> dict[str, Any]:
    codec = load_codec(folder)
    return {
        "codec": {
            "digest": digest,
            "config": codec.config_dict(),
            "sample_rate": codec.timebase.sample_rate,
            "hop_length": codec.timebase.hop_length,
            "num_channels": codec.num_channels,
            "latent_dim": codec.latent_dim,
            "delay_samples": codec.delay_samples,
            "channel_importance": codec_importance(folder),
        },
        "silence": base64.b64encode(silence_frame(codec).tobytes()).decode(),
    }


def _speaker_facts(settings: EncodeSettings) -> dict[str, Any]:
    encoder = load_speaker_encoder(settings.speaker_encoder)
    return {"speaker": {"encoder": encoder.name, "speaker_dim": encoder.speaker_dim}}


def silence_frame(codec: AudioCodec) -> NDArray[np.float16]:
    """Posterior mean of one frame in the midst of digital silence: what pads a last block."""
    num_frames = codec.timebase.frames_in(_SILENCE_S)
    silence = torch.zeros(1, codec.num_channels, codec.timebase.num_samples(num_frames))
    with torch.inference_mode():
        mean = codec.encode(silence).mean
    return mean[0, num_frames // 2].numpy().astype(np.float16)


@dataclass
class _Clip:
    """A decoded clip at the codec's rate, and later its posterior."""

    row: dict[str, Any]
    waveform: NDArray[np.float32] | None
    num_samples: int
    attributes: dict[str, float]
    speaker: list[float] | None
    mean: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))
    log_std: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))

    @property
    def is_finite(self) -> bool:
        """Whether all of its latents are finite."""
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.log_std).all())


class EncodeWorker:
    """Decodes, measures and encodes the clips of one part."""

    def __init__(self, clips: Folder, codec: str, settings: EncodeSettings) -> None:
        self._clips = ClipTables.of(clips)
        self._settings = settings
        self._codec = load_codec(codec)
        has_gpu = settings.resources.gpus > 0 and torch.cuda.is_available()
        self._device = torch.device("cuda" if has_gpu else "cpu")
        if isinstance(self._codec, torch.nn.Module):
            self._codec.to(self._device)
        self._speakers = load_speaker_encoder(settings.speaker_encoder, self._device)

    def process(self, unit: Unit) -> UnitOutput:
        """Tar, index and rejects of a part."""
        rows = self._clips.read(unit.name, COLUMNS).to_pylist()
        rejects: list[Reject] = []
        encoded: list[_Clip] = []
        for window in self._windows(unit, rows, rejects):
            unit.guard("")  # a death in the codec is no fault of the clip decoded last
            for batch in self._batches(window):
                encoded += self._encode(batch, rejects)
                for clip in batch:
                    clip.waveform = None  # decoded audio is what fills the memory
                unit.beat()
        encoded.sort(key=lambda clip: clip_key(clip.row["clip_id"]))
        return self._output(unit.name, len(rows), encoded, rejects)

    def _windows(
        self, unit: Unit, rows: Sequence[dict[str, Any]], rejects: list[Reject]
    ) -> Iterator[list[_Clip]]:
        limit = self._settings.resources.window_s * self._codec.timebase.sample_rate
        window: list[_Clip] = []
        for item in self._decoded(unit, rows):
            if isinstance(item, Reject):
                rejects.append(item)
                continue
            window.append(item)
            if sum(clip.num_samples for clip in window) >= limit:
                yield window
                window = []
        yield window

    def _decoded(self, unit: Unit, rows: Sequence[dict[str, Any]]) -> Iterator[_Clip | Reject]:
        """Clips in order, some ahead of what is consumed; one at a time after a death."""
        threads = 1 if unit.attempt > 1 else self._settings.resources.decode_threads
        if threads == 1:
            yield from (self._decode_or_reject(unit, row) for row in rows)
            return
        with ThreadPoolExecutor(threads) as pool:
            ahead: deque[Future[_Clip | Reject]] = deque()
            for row in rows:
                ahead.append(pool.submit(self._decode_or_reject, unit, row))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            yield from (item.result() for item in ahead)

    def _decode_or_reject(self, unit: Unit, row: dict[str, Any]) -> _Clip | Reject:
        if not unit.guard(row["clip_id"]):
            detail = "the worker died while it worked on this clip; check the file by hand"
            return reject_clip(row, Reason.WORKER_DIED, detail, STAGE)
        try:
            return self._decode(row)
        except AudioError as error:
            return reject_clip(row, error.reason, error.detail, STAGE)
        finally:
            unit.beat()

    def _decode(self, row: dict[str, Any]) -> _Clip:
        audio = read_audio(row["uri"], row["start_s"], row["end_s"])
        waveform, rate = audio.waveform, audio.sample_rate
        is_speech = row["modality"] == "speech"
        attributes = {}
        if self._settings.measures_attributes:
            attributes = measure(waveform, rate, row["modality"])
        speaker = None
        if is_speech and self._settings.embeds_speakers:
            embedding = on_device(
                lambda: self._speakers.embed(waveform, rate), f"speaker of {row['clip_id']}"
            )
            speaker = [float(value) for value in embedding] if embedding.any() else None
        at_rate = resample(
            to_channels(waveform, self._codec.num_channels), rate, self._codec.timebase.sample_rate
        )
        return _Clip(row, at_rate, int(at_rate.shape[1]), attributes, speaker)

    def _batches(self, window: list[_Clip]) -> Iterator[list[_Clip]]:
        """Clips of like length together; on every attempt the same, because batching rounds."""
        limit = self._settings.resources.max_batch_s * self._codec.timebase.sample_rate
        batch: list[_Clip] = []
        for clip in sorted(window, key=lambda clip: (clip.num_samples, clip.row["clip_id"])):
            is_full = (len(batch) + 1) * clip.num_samples > limit
            if batch and (is_full or len(batch) >= self._settings.resources.max_batch_clips):
                yield batch
                batch = []
            batch.append(clip)
        if batch:
            yield batch

    def _encode(
        self, batch: list[_Clip], rejects: list[Reject], *, has_failed: bool = False
    ) -> list[_Clip]:
        """Posteriors of a batch; a clip is rejected only for what it does alone and twice.

        `has_failed` says that the batch is a clip out of one that failed.

        Raises:
            MachineError: If the device fails, or one clip is too much for its memory.
        """
        first = batch[0].row["clip_id"]
        is_alone = len(batch) == 1
        what = f"clip {first}" if is_alone else f"{len(batch)} clips, the first {first}"
        try:
            on_device(lambda: self._posterior(batch), what)
        except OutOfMemoryError as error:
            if is_alone:
                raise OutOfMemoryError(self._too_large(batch[0], error)) from error
            logger.warning("%s; in two halves", error)
            half = len(batch) // 2
            return [*self._encode(batch[:half], rejects), *self._encode(batch[half:], rejects)]
        except (ValueError, RuntimeError) as error:
            if has_failed:
                said = f"the codec said: {error}"
                rejects.append(reject_clip(batch[0].row, Reason.ENCODER_FAILED, said, STAGE))
                return []
            logger.warning("%s failed, clip by clip: %s", what, error)
            return [c for clip in batch for c in self._encode([clip], rejects, has_failed=True)]
        return [clip for clip in batch if clip.is_finite or self._is_mended(clip, rejects)]

    def _is_mended(self, clip: _Clip, rejects: list[Reject]) -> bool:
        """Whether a clip whose latents were not finite has finite ones when encoded alone."""
        on_device(lambda: self._posterior([clip]), f"clip {clip.row['clip_id']}")
        if not clip.is_finite:
            detail = "latents are not finite in 16 bit; the codec may be badly trained"
            rejects.append(reject_clip(clip.row, Reason.ENCODER_FAILED, detail, STAGE))
        return clip.is_finite

    def _too_large(self, clip: _Clip, error: Exception) -> str:
        duration_s = self._codec.timebase.duration_s(clip.num_samples)
        remedy = "shorten ingest.segments, or encode on CPUs with resources.gpus=0"
        return f"{error} ({duration_s:.1f} s alone); use a device with more memory, {remedy}"

    def _posterior(self, batch: list[_Clip]) -> None:
        counts = [clip.num_samples for clip in batch]
        waveform = torch.zeros(len(batch), self._codec.num_channels, max(counts))
        for row, clip in zip(waveform, batch, strict=True):
            assert clip.waveform is not None, "dropped once the batch is encoded"
            row[:, : clip.num_samples] = torch.from_numpy(clip.waveform)
        with torch.inference_mode():
            posterior = self._codec.encode(
                waveform.to(self._device), torch.tensor(counts, device=self._device)
            )
        for i, clip in enumerate(batch):
            num_frames = self._codec.timebase.num_frames(clip.num_samples)
            # Overflow to infinity is found and rejected by the caller.
            with np.errstate(over="ignore"):
                clip.mean = posterior.mean[i, :num_frames].cpu().numpy().astype(np.float16)
                clip.log_std = posterior.log_std[i, :num_frames].cpu().numpy().astype(np.float16)

    def _output(
        self, name: str, num_read: int, encoded: list[_Clip], rejects: list[Reject]
    ) -> UnitOutput:
        shard = f"latents-{name}"
        members = {}
        totals: dict[str, float] = {}
        for clip in encoded:
            key = clip_key(clip.row["clip_id"])
            members[f"{key}.{MEAN}"] = npy_bytes(clip.mean)
            members[f"{key}.{LOG_STD}"] = npy_bytes(clip.log_std)
            facts = {"clip_id": clip.row["clip_id"], "attributes": clip.attributes}
            members[f"{key}.{JSON}"] = json.dumps(facts, sort_keys=True).encode()
            hours = hours_key(clip.row["modality"], clip.row["language"])
            duration_s = self._codec.timebase.duration_s(clip.num_samples)
            totals[hours] = totals.get(hours, 0.0) + duration_s / 3600
        tar, places = tar_bytes(members)
        index = [self._index_row(clip, shard, places) for clip in encoded]
        files = {
            f"shards/{shard}.tar": tar,
            f"parts/{shard}.parquet": table_bytes(pa.Table.from_pylist(index, schema=LATENTS)),
        }
        return UnitOutput(files, num_read, len(encoded), rejects, totals)

    def _index_row(
        self, clip: _Clip, shard: str, places: dict[str, tuple[int, int]]
    ) -> dict[str, Any]:
        key = clip_key(clip.row["clip_id"])
        mean_offset, mean_size = places[f"{key}.{MEAN}"]
        log_std_offset, log_std_size = places[f"{key}.{LOG_STD}"]
        return {
            "clip_id": clip.row["clip_id"],
            "key": key,
            "shard": shard,
            "num_frames": len(clip.mean),
            "num_samples": clip.num_samples,
            "mean_offset": mean_offset,
            "mean_size": mean_size,
            "log_std_offset": log_std_offset,
            "log_std_size": log_std_size,
            "speaker_embedding": clip.speaker,
            "attributes": json.dumps(clip.attributes, sort_keys=True),
        }
