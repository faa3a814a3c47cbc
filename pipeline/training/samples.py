"""Audio samples of a run while it trains, made with the weight average of a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import torch

from model.bundle.bundle import Bundle
from model.bundle.limits import Limits, RequestError
from model.bundle.request import SynthesisRequest, request_of_clip, sampling_defaults
from model.bundle.synthesis import SynthesisError, Synthesizer
from model.codec.protocol import AudioCodec
from model.codec.registry import load_codec
from model.config import MODALITIES
from model.text import Tokenizer
from pipeline.audio.wav import write_wav
from pipeline.figures import save_spectrogram
from pipeline.storage import Folder
from pipeline.tracking import Tracker
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore, checkpoint_name
from pipeline.training.export import check_codec
from pipeline.training.rundir import SAMPLES
from pipeline.training.settings import SampleSettings
from pipeline.training.shards import TrainShards

logger = logging.getLogger(__name__)

_LONGEST_SPEECH_S = 120.0
"""Longest sample of speech, seconds; words that do not fit one piece are read in several."""


class Samples:
    """Makes the same requests with each checkpoint.

    Args:
        settings: Requests and their limits.
        shards: Source of requests if the settings name none; validation clips if there are any.
        codec: Codec folder.
        tokenizer: Encodes the prompts.
        device: Device to generate on.

    Raises:
        SettingsError: If the codec is not that of the shards.
    """

    def __init__(
        self,
        settings: SampleSettings,
        shards: TrainShards,
        codec: Path,
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        check_codec(codec, shards.codec)
        self._settings = settings
        self._codec = load_codec(codec)
        self._tokenizer = tokenizer
        self._device = device
        self._requests = _requests(settings, shards)

    def make(self, store: CheckpointStore, step: int, run: Folder, tracker: Tracker) -> None:
        """Write audio and spectrograms of one checkpoint to the run and to its artefacts."""
        model = averaged_model(store, step).to(self._device)
        codec = cast(AudioCodec, cast(torch.nn.Module, self._codec).to(self._device))
        sampling = sampling_defaults(self._settings.sampling())
        bundle = Bundle(model, codec, self._tokenizer, {}, "", sampling=sampling)
        limits = Limits(max_duration_s=self._settings.max_seconds, max_speech_s=_LONGEST_SPEECH_S)
        synthesizer = Synthesizer(bundle, limits)
        rate = self._codec.timebase.sample_rate
        folder = f"{SAMPLES}/{checkpoint_name(step)}"
        with TemporaryDirectory() as place:
            for number, (label, request) in enumerate(self._requests):
                try:
                    pieces = [piece.float().cpu() for piece in synthesizer.stream(request)]
                except (RequestError, SynthesisError) as error:
                    logger.warning("no %s sample at step %d: %s", label, step, error)
                    continue
                waveform = torch.cat(pieces, dim=-1).numpy()
                name = f"{number:02d}-{label}"
                sound, picture = Path(place) / f"{name}.wav", Path(place) / f"{name}.png"
                write_wav(sound, waveform, rate)
                save_spectrogram(picture, waveform, rate, request.description[:80])
                for path in (sound, picture):
                    run.write_bytes(f"{folder}/{path.name}", path.read_bytes())
                    tracker.log_file(path, folder)


def _requests(settings: SampleSettings, shards: TrainShards) -> list[tuple[str, SynthesisRequest]]:
    if settings.descriptions:
        return [
            ("sound", SynthesisRequest(description=text, duration_s=settings.max_seconds))
            for text in settings.descriptions
        ]
    held_out = TrainShards(shards.folder, "validation")
    source = held_out if len(held_out) else shards
    modality = source.column("modality")
    found = []
    for name in MODALITIES:
        numbers = np.flatnonzero(modality == name)
        if len(numbers):
            found.append((name, _request_of(source, int(numbers[0]), settings)))
    return found


def _request_of(shards: TrainShards, number: int, settings: SampleSettings) -> SynthesisRequest:
    """The request that corresponds to a clip of the shards."""
    row = shards.row(number)
    facts = shards.facts(row)
    voice = shards.embeddings.of(number)
    has_words = bool(facts.get("transcript"))
    return request_of_clip(
        description=(facts.get("descriptions") or [""])[0],
        transcript=facts.get("transcript"),
        language=facts.get("language"),
        modality=row["modality"],
        duration_s=min(facts["duration_s"], settings.max_seconds),
        is_singing=bool(row["is_singing"]),
        voice=torch.from_numpy(voice) if voice is not None and has_words else None,
    )
