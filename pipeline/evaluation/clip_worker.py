"""Generates and observes one clip at a time, and keeps both in a cache keyed by content.

The cache holds two files for each clip. `<key>.wav` is the generated audio as float32. `<key>.json`
is the record: the time of the generation and the observations of every metric. The key covers the
bundle, the request with its seed, and the recording, so an interrupted evaluation continues where
it stopped, and other settings never read what they did not write.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import scipy.io.wavfile
import soundfile
import torch
from torch import Tensor

from model.bundle.bundle import Bundle, load_bundle
from model.bundle.limits import RequestError
from model.bundle.request import SynthesisRequest, request_of_clip
from model.bundle.synthesis import SynthesisError, Synthesizer
from pipeline.continuation import speech_prompt, spoken_recording
from pipeline.evaluation.findings import FORMS, Observed
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening, load_clip, reconstruct
from pipeline.evaluation.metric import Metric
from pipeline.settings import digest_of
from pipeline.storage import Folder

logger = logging.getLogger(__name__)

RECORD_VERSION = 1
"""Version of the cached files; records of another one are made again."""


@dataclass(frozen=True)
class Sampling:
    """How audio is generated.

    Attributes:
        num_flow_steps: Solver steps for each block; None uses those of the bundle.
        guidance_scale: Scale of classifier-free guidance; None uses that of the bundle.
        seed: Seed of the noise.
    """

    num_flow_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class ClipTask:
    """One clip to observe.

    Attributes:
        clip: The clip.
        forms: Forms to observe; without `generated`, nothing is generated.
        sampling: How it is generated.
        reference: Another recording of the speaker, for voice similarity.
        voice: Speaker embedding that the model is given.
        is_continued: Whether the model continues the reference.
        metrics: Metrics that observe the clip, by name; None is all.
    """

    clip: HeldOutClip
    forms: tuple[str, ...] = FORMS
    sampling: Sampling = Sampling()
    reference: HeldOutClip | None = None
    voice: tuple[float, ...] | None = None
    is_continued: bool = False
    metrics: tuple[str, ...] | None = None

    def is_for(self, metric: str) -> bool:
        """Whether a metric observes the clip for this task."""
        return self.metrics is None or metric in self.metrics

    def key(self, bundle_digest: str) -> str:
        """Name of the cached files: a digest of everything that the audio depends on."""
        identity = _identity(self) | {
            "bundle": bundle_digest,
            "record_version": RECORD_VERSION,
            "torch": torch.__version__,
        }
        return digest_of(identity)[:32]


def _identity(task: ClipTask) -> dict[str, Any]:
    """The task as plain values; recordings are identified by their content, if it is known."""
    found = asdict(task)
    del found["metrics"]
    for name in ("clip", "reference"):
        if found[name] is not None and found[name]["content_sha256"] is not None:
            del found[name]["uri"]
    return found


class ClipCache:
    """Generated audio and records in one directory.

    Attributes:
        folder: The directory, reached by all workers.
    """

    def __init__(self, folder: Folder, metrics: Sequence[Metric]) -> None:
        self.folder = folder
        self._versions = {metric.name: metric.version for metric in metrics}

    def record(self, key: str) -> dict[str, Any]:
        """The record of a clip; empty if there is none."""
        if not self.folder.exists(f"{key}.json"):
            return {}
        record: dict[str, Any] = self.folder.read_json(f"{key}.json")
        return record

    def is_complete(self, task: ClipTask, record: dict[str, Any]) -> bool:
        """Whether the metrics observed the clip, or declined to, in their present versions."""
        found = record.get("versions", {})
        return "generate_s" in record and all(
            found.get(name) == version
            for name, version in self._versions.items()
            if task.is_for(name)
        )

    def observed(self, task: ClipTask, record: dict[str, Any]) -> Observed:
        """A complete record in the form that metrics summarise."""
        observations = {n: record["observations"][n] for n in self._versions
                        if n in record["observations"]}  # fmt: skip
        return Observed(task.clip, observations, record["generate_s"], record["failure"])

    def write(self, key: str, record: dict[str, Any]) -> None:
        """Write a record so that it appears complete or not at all."""
        self.folder.write_json(f"{key}.json", record)

    def write_audio(self, key: str, waveform: Tensor, sample_rate: int) -> None:
        """Write generated audio, `channels samples`, without loss.

        SciPy writes the same bytes every time; libsndfile puts the time into float WAV files.
        """
        sink = io.BytesIO()
        scipy.io.wavfile.write(sink, sample_rate, waveform.float().T.numpy())
        self.folder.write_bytes(f"{key}.wav", sink.getvalue())

    def read_audio(self, key: str) -> Tensor:
        """Generated audio, `channels samples`."""
        payload = io.BytesIO(self.folder.read_bytes(f"{key}.wav"))
        frames, _ = soundfile.read(payload, dtype="float32", always_2d=True)
        return torch.from_numpy(frames.T.copy())


class ClipWorker:
    """Processes clip tasks in one process."""

    def __init__(
        self,
        bundle: Bundle | str,
        cache: Folder,
        metrics: Sequence[Metric],
        device: str = "cpu",
    ) -> None:
        """Load the bundle.

        Args:
            bundle: A bundle, or the folder of one.
            cache: Directory of the cached files, reached by all workers.
            metrics: Metrics that observe each clip.
            device: Device for generation.
        """
        self._bundle = load_bundle(bundle, device) if isinstance(bundle, str) else bundle
        self._metrics = metrics
        self._cache = ClipCache(cache, metrics)
        self._synthesizer: Synthesizer | None = None

    def process(self, task: ClipTask) -> str:
        """Bring the record of a clip up to date.

        Returns:
            An error message, or an empty text. The caller fails the job after the other clips.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the order of sums, and so the last bits, depend on it
        try:
            self._process(task)
        except Exception as error:  # any metric or model may raise anything; logged and returned
            logger.error("clip %s was not evaluated", task.clip.clip_id, exc_info=error)
            return f"clip {task.clip.clip_id}: {type(error).__name__}: {error}"
        finally:
            torch.set_num_threads(threads)
        return ""

    def _process(self, task: ClipTask) -> None:
        key = task.key(self._bundle.digest)
        record = self._cache.record(key)
        if self._cache.is_complete(task, record):
            return
        if "generate_s" not in record:
            record = self._generate(task, key)
            self._cache.write(key, record)
        item = listen(task, self._bundle, self._cache)
        for metric in self._metrics:
            is_known = record["versions"].get(metric.name) == metric.version
            if is_known or not task.is_for(metric.name):
                continue
            record["observations"].pop(metric.name, None)
            if metric.applies_to(task.clip):
                observed = {form: metric.observe(item, form) for form in task.forms}
                record["observations"][metric.name] = observed
            record["versions"][metric.name] = metric.version
        self._cache.write(key, record)

    def _generate(self, task: ClipTask, key: str) -> dict[str, Any]:
        record: dict[str, Any] = {"clip_id": task.clip.clip_id, "generate_s": 0.0, "failure": None}
        record |= {"versions": {}, "observations": {}, "has_audio": False}
        if "generated" not in task.forms:
            return record
        self._synthesizer = self._synthesizer or Synthesizer(self._bundle)
        started = time.perf_counter()
        try:
            pieces = list(self._synthesizer.stream(self._request(task)))
            waveform = torch.cat(pieces, -1).cpu()
        except (RequestError, SynthesisError) as error:
            logger.warning("clip %s was not generated: %s", task.clip.clip_id, error)
            return record | {"failure": str(error)}
        record["generate_s"] = time.perf_counter() - started
        if not waveform.numel():
            return record | {"failure": "the generated audio is empty"}
        self._cache.write_audio(key, waveform, self._bundle.codec.timebase.sample_rate)
        return record | {"has_audio": True}

    def _request(self, task: ClipTask) -> SynthesisRequest:
        clip, sampling = task.clip, task.sampling
        continues = None
        if task.is_continued and task.reference is not None:
            waveform = load_clip(task.reference, self._bundle.codec).numpy()
            rate, words = self._bundle.codec.timebase.sample_rate, task.reference.transcript or ""
            try:
                continues = speech_prompt(spoken_recording(waveform, rate, words), self._bundle)
            except RequestError as error:
                logger.warning("clip %s is not continued: %s", task.reference.clip_id, error)
        return request_of_clip(
            description=clip.description,
            transcript=clip.transcript,
            language=clip.language,
            modality=clip.modality,
            duration_s=clip.duration_s,
            is_singing=clip.is_singing,
            seed=sampling.seed,
            sampling={
                "num_flow_steps": sampling.num_flow_steps,
                "guidance_scale": sampling.guidance_scale,
            },
            voice=None if task.voice is None else torch.tensor(task.voice),
            continues=continues,
        )


def listen(task: ClipTask, bundle: Bundle, cache: ClipCache) -> Listening:
    """The forms of a clip that its task names; generated audio comes from the cache."""
    key = task.key(bundle.digest)
    codec = bundle.codec
    real = load_clip(task.clip, codec)
    has_audio = "generated" in task.forms and cache.record(key).get("has_audio")
    return Listening(
        clip=task.clip,
        sample_rate=codec.timebase.sample_rate,
        real=real,
        reconstructed=reconstruct(real.to(bundle.model.device), codec).cpu()
        if "reconstructed" in task.forms
        else real,
        generated=cache.read_audio(key) if has_audio else None,
        reference=load_clip(task.reference, codec) if task.reference is not None else None,
    )
