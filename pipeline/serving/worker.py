"""The worker of a replica: generates PCM for jobs with one bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.bundle.bundle import check_voices, load_bundle
from model.bundle.limits import RequestError
from model.bundle.request import SynthesisRequest, sampling_defaults
from model.bundle.shipped import SHIPPED
from model.bundle.synthesis import Piece, SynthesisError, Synthesizer, Utterance
from model.bundle.voices import Voice, spoken_as
from model.inference.cache import CacheFullError, CacheSize
from pipeline.continuation import speech_prompt
from pipeline.errors import SettingsError
from pipeline.serving.answer import BusyError, Opening, RefusedError, Step, Usage
from pipeline.serving.formats import AudioLayout, pcm_bytes
from pipeline.serving.heard_voice import heard_voice
from pipeline.serving.schemas import DEFAULT_VOICE, AudioJob
from pipeline.serving.settings import BatchSettings, ServeSettings
from pipeline.serving.stream import Service
from pipeline.serving.voices import aliases_of
from pipeline.storage import Folder


@dataclass(eq=False)
class Spoken:
    """State of a running request.

    Attributes:
        utterance: Progress of the generation.
        num_samples: Samples generated so far.
    """

    utterance: Utterance
    num_samples: int = 0


class BundleWorker:
    """Generates audio with one bundle; implements `answer.Worker`.

    Args:
        synthesizer: Loaded bundle.
        voices: Voices by name, beyond those of the bundle.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        voices: dict[str, Voice] | None = None,
    ) -> None:
        self._synthesizer = synthesizer
        self._sampling = synthesizer.bundle.sampling
        self._voices = synthesizer.bundle.voices | (voices or {})
        self._aliases = aliases_of(self._voices, {})
        self._paces_speech = synthesizer.bundle.model.config.paces_speech
        codec = synthesizer.bundle.codec
        self.layout = AudioLayout(codec.timebase.sample_rate, codec.num_channels)

    def service(self) -> Service:
        """Public facts about the model."""
        bundle = self._synthesizer.bundle
        voices = {name: self._voices[name].description for name in sorted(self._voices)}
        speaker_dim = bundle.model.config.speaker_dim
        return Service(
            self.layout, voices, speaker_dim, bundle.digest, self._aliases, bundle.default_voice
        )

    def reconfigure(self, settings: ServeSettings) -> None:
        """Take limits, sampling defaults and voice aliases for the requests that follow.

        Raises:
            SettingsError: If a modality, an option or a voice is unknown or out of range; nothing
                changes then.
        """
        try:
            sampling = sampling_defaults(settings.sampling, self._sampling)
        except ValueError as error:
            raise SettingsError(f"sampling: {error}") from error
        aliases = aliases_of(self._voices, settings.voice_aliases)
        self._synthesizer.configure(settings.limits.limits(), sampling)
        self._aliases = aliases

    def opening(self, job: AudioJob) -> Opening:
        """Layout, bundle, and the tempo change for a model that cannot change its speaking rate."""
        tempo = 1.0 if self._paces_speech else job.speed
        return Opening(self.layout, self._synthesizer.bundle.digest, tempo)

    def open(self, job: AudioJob) -> Spoken:
        """Begin a request.

        Raises:
            RefusedError: If it cannot be made.
            BusyError: If the cache has no room for it beside the requests that run.
        """
        try:
            return Spoken(self._synthesizer.open(self._request(job)))
        except CacheFullError as error:
            raise BusyError(str(error)) from error
        except RequestError as error:
            raise RefusedError(error.field, error.message) from error

    def step(self, handles: Sequence[Spoken]) -> list[Step]:
        """Advance each request by one block."""
        pieces = self._synthesizer.step([handle.utterance for handle in handles])
        return [self._step(*pair) for pair in zip(handles, pieces, strict=True)]

    def close(self, handle: Spoken) -> None:
        """Free what a request holds."""
        self._synthesizer.close(handle.utterance)

    def warm_up(self) -> None:
        """Generate up to two blocks, so that lazy set-up does not delay a request."""
        handle = self.open(AudioJob(description="warm up", modality="sound"))
        for _ in range(2):
            if self.step([handle])[0].is_last:
                break
        self.close(handle)

    def _request(self, job: AudioJob) -> SynthesisRequest:
        recording, bundle = job.continues, self._synthesizer.bundle
        continues = None if recording is None else speech_prompt(recording, bundle)
        voice, description = self._spoken_as(job)
        return SynthesisRequest(
            description=description,
            transcript=job.transcript,
            language=job.language,
            modality=job.modality,
            duration_s=job.duration_s,
            voice=voice,
            continues=continues,
            seed=job.seed,
            is_singing=job.is_singing,
            speed=job.speed if self._paces_speech else 1.0,
            sampling=job.sampling,
        )

    def _step(self, handle: Spoken, piece: Piece | SynthesisError) -> Step:
        if isinstance(piece, SynthesisError):
            return Step(b"", is_last=True, failure=str(piece))
        handle.num_samples += piece.waveform.shape[-1]
        samples = pcm_bytes(piece.waveform.numpy())
        usage = None
        if piece.is_last:
            hop_length = self._synthesizer.timebase.hop_length
            usage = Usage(handle.utterance.num_tokens, -(-handle.num_samples // hop_length))
        return Step(
            samples,
            piece.is_last,
            is_capped=piece.is_capped,
            usage=usage,
            is_waiting=piece.is_waiting,
            frees_memory=piece.frees_room,
        )

    def _spoken_as(self, job: AudioJob) -> tuple[Tensor | None, str]:
        """Speaker embedding, or None, and description of a job."""
        has_own = job.voice_embedding is not None or job.continues is not None
        voice, description = spoken_as(
            self._named(job.voice),
            job.description if job.is_described else None,
            self._voices,
            default_voice=None if has_own else self._synthesizer.bundle.default_voice,
            default_description=job.description,
        )
        if job.voice_embedding is None:
            return None if voice is None else self._voices[voice].embedding, description
        has_voices = self._synthesizer.bundle.model.config.speaker_id is not None
        if job.continues is not None and not has_voices:
            return None, description  # the voice is in what it continues
        return torch.tensor(job.voice_embedding, dtype=torch.float32), description

    def _named(self, name: str) -> str | None:
        """The voice that a name stands for; None for `default`, which leaves it open."""
        voice = self._aliases.get(name, name)
        if voice == DEFAULT_VOICE:
            return None
        if voice not in self._voices:
            known = ", ".join([DEFAULT_VOICE, *sorted(self._voices), *sorted(self._aliases)])
            raise RequestError("voice", f"no voice {name!r}; there is {known}")
        return voice


def load_worker(
    settings: ServeSettings, voices: Mapping[str, Sequence[float]], *, has_gpu: bool
) -> BundleWorker:
    """Load the worker of a replica and warm it up.

    Args:
        settings: Settings of the endpoint, with bundle and device.
        voices: Speaker embeddings by voice name, beyond those of the bundle.
        has_gpu: Whether the replica was given a GPU.

    Raises:
        BundleError: If the bundle cannot be read, or a voice does not suit its model.
        SettingsError: If an alias or a sampling default cannot be used.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if has_gpu and torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(max(1, int(settings.cpus_per_replica)))
    with tempfile.TemporaryDirectory(prefix="audiocalm-bundle-") as scratch:
        name = settings.bundle
        folder = name if name in SHIPPED else local_copy(name, Path(scratch))
        bundle = load_bundle(folder, device, settings.precision)
    recorded = {name: Voice(torch.tensor(values)) for name, values in voices.items()}
    check_voices(bundle.model, recorded)
    synthesizer = Synthesizer(
        bundle,
        settings.limits.limits(),
        _cache_size(settings.batch),
        settings.batch.cache_bytes,
        heard_voice(bundle),
    )
    synthesizer.warm_up()
    worker = BundleWorker(synthesizer, recorded)
    worker.reconfigure(settings)
    worker.warm_up()
    return worker


def _cache_size(batch: BatchSettings) -> CacheSize | None:
    """Size of the KV cache; None grows on demand."""
    if batch.row_tokens is None:
        return None
    return CacheSize(2 * batch.max_batch, batch.row_tokens, has_few_shapes=batch.cuda_graphs)


def local_copy(uri: str, scratch: Path) -> Path:
    """The bundle as a local folder; one on an object store is copied into `scratch`."""
    folder = Folder.at(uri)
    if folder.is_local:
        return Path(folder.path)
    for name in folder.files(recursive=True):
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with folder.open(name) as source, target.open("wb") as copy:
            while block := source.read(1 << 24):
                copy.write(block)
    return scratch
