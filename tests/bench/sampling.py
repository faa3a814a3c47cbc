"""`make bench-sampling`: flow steps, guidance and temperature of one bundle, one by one.

Starting from what the bundle does where a request does not say, one option at a time takes other
values, on the same held-out clips and seeds. The defaults of a shipped bundle come from this table.

    python -m tests.bench.sampling --bundle DIR --data DIR [--asr DIR] [--clips 40]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.bundle.bundle import Bundle, load_bundle
from model.bundle.request import request_of_clip
from model.bundle.synthesis import Piece, Synthesizer
from model.tempo import requested_tempo_bpm
from pipeline.acoustics.attributes import measure_tempo_bpm
from pipeline.evaluation import intervals, musical_requests
from pipeline.evaluation.class_metric import instrument_family, sound_class
from pipeline.evaluation.classifier import Classifier, clip_features, trainable
from pipeline.evaluation.held_out import TRAINING, HeldOutClip, described_clips
from pipeline.evaluation.listening import load_clip, reconstruct
from pipeline.evaluation.recogniser import WhisperRecogniser
from pipeline.evaluation.signal import examine
from pipeline.evaluation.spoken_words import count_errors
from pipeline.storage import Folder

CHANGES: dict[str, tuple[Any, ...]] = {
    "num_flow_steps": (1, 2, 4, 8, 16),
    "guidance_scale": (1.0, 1.5, 2.0, 3.0),
    "temperature": (0.1, 0.25, 0.5, 1.0),
}
"""Values of each option of `SamplingOptions`."""
SPEECH_CORPORA = ("digit", "number", "word")
"""Ends of the names of corpora that speech is taken from, where the data has them."""
BATCH = 20
TRAINING_CLIPS = 400
MAX_DURATION_S = 8.0


@dataclass
class Measured:
    """Held-out clips of one modality, and how a waveform of each is judged.

    Attributes:
        clips: What is asked for.
        judge: Whether each waveform is what its clip asks for.
        name: What that means.
    """

    clips: list[HeldOutClip]
    judge: Callable[[Sequence[Tensor]], list[bool]]
    name: str


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sampling", description=__doc__)
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--data", required=True, help="what `prepare` left")
    parser.add_argument("--asr", type=Path, help="Whisper in CTranslate2 form, for speech")
    parser.add_argument("--clips", type=int, default=40, help="of each modality and corpus")
    parser.add_argument("--only", nargs="+", help="options to change; all")
    parser.add_argument("--modalities", nargs="+", default=["speech", "sound", "music"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle, data = load_bundle(options.bundle), Folder.at(options.data)
    pool = described_clips(data.child("clips"), data.child("descriptions"), MAX_DURATION_S)
    print(
        "| modality | flow steps | guidance | temperature | right | silent | dB | RTF |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for modality in options.modalities:
        measured = _measured(modality, pool, bundle, options)
        if measured is None:
            continue
        print(f"| **{modality}**: {measured.name}, n = {len(measured.clips)} | | | | | | | |")
        for form in ("recordings", "codec"):
            heard = [_original(clip, bundle, form) for clip in measured.clips]
            print(f"| {form} | | | | {_figures(measured, heard, bundle)} | |", flush=True)
        for sampling in _points(bundle, modality, options.only or list(CHANGES)):
            changed = _with_sampling(bundle, modality, sampling)
            started = time.perf_counter()
            made = generate(changed, measured.clips)
            seconds = time.perf_counter() - started
            rate = bundle.codec.timebase.sample_rate
            factor = seconds * rate / max(1, sum(waveform.shape[-1] for waveform in made))
            values = " | ".join(str(sampling[name]) for name in CHANGES)
            figures = _figures(measured, made, bundle)
            print(f"| {modality} | {values} | {figures} | {factor:.2f} |", flush=True)


def generate(bundle: Bundle, clips: Sequence[HeldOutClip]) -> list[Tensor]:
    """What a bundle makes of clips' descriptions, `channels samples` each, in batches."""
    synthesizer, made = Synthesizer(bundle), []
    for begin in range(0, len(clips), BATCH):
        opened = [
            synthesizer.open(
                request_of_clip(
                    description=clip.description,
                    transcript=clip.transcript,
                    language=clip.language,
                    modality=clip.modality,
                    duration_s=clip.duration_s,
                    is_singing=clip.is_singing,
                    seed=begin + index,
                )
            )
            for index, clip in enumerate(clips[begin : begin + BATCH])
        ]
        parts: list[list[Tensor]] = [[] for _ in opened]
        live = list(range(len(opened)))
        while live:
            pieces = synthesizer.step([opened[index] for index in live])
            for index, piece in zip(tuple(live), pieces, strict=True):
                if isinstance(piece, Piece):
                    parts[index].append(piece.waveform)
                if not isinstance(piece, Piece) or piece.is_last:
                    live.remove(index)
                    synthesizer.close(opened[index])
        made += [torch.cat(chunks, -1) if chunks else torch.zeros(1, 1) for chunks in parts]
    return made


def _points(bundle: Bundle, modality: str, only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The bundle's own sampling, then each with one option changed."""
    own = {name: getattr(bundle.sampling[modality], name) for name in CHANGES}
    yield own
    for name in only:
        yield from ({**own, name: value} for value in CHANGES[name] if value != own[name])


def _with_sampling(bundle: Bundle, modality: str, values: dict[str, Any]) -> Bundle:
    changed = dataclasses.replace(bundle.sampling[modality], **values)
    return dataclasses.replace(bundle, sampling={**bundle.sampling, modality: changed})


def _figures(measured: Measured, waveforms: Sequence[Tensor], bundle: Bundle) -> str:
    """Share that is right with its interval, mean share of silence, mean level in dBFS."""
    rate = bundle.codec.timebase.sample_rate
    right = intervals.mean(measured.judge(waveforms))
    facts = [examine(waveform, rate) for waveform in waveforms]
    silent = sum(fact.silent_share for fact in facts) / len(facts)
    level = sum(fact.level_dbfs for fact in facts) / len(facts)
    low, high = right["low"], right["high"]
    return f"{right['value']:.2f} ({low:.2f} to {high:.2f}) | {silent:.2f} | {level:.1f}"


def _original(clip: HeldOutClip, bundle: Bundle, form: str) -> Tensor:
    real = load_clip(clip, bundle.codec)
    return real if form == "recordings" else reconstruct(real, bundle.codec)


def _measured(
    modality: str, pool: Sequence[HeldOutClip], bundle: Bundle, options: argparse.Namespace
) -> Measured | None:
    held_out = [clip for clip in pool if clip.modality == modality and clip.split != TRAINING]
    if modality == "speech":
        if options.asr is None:
            return None
        chosen = [
            clip
            for end in SPEECH_CORPORA
            for clip in [c for c in held_out if c.corpus.endswith(end)][: options.clips]
        ]
        hear = functools.partial(_heard, WhisperRecogniser(options.asr), chosen, bundle)
        return Measured(chosen, hear, "every word is recognised")
    label_of = label_function(modality)
    classifier, labels = trained_classifier(modality, pool, bundle)
    rate = bundle.codec.timebase.sample_rate
    chosen = [clip for clip in held_out if label_of(clip) in labels][: options.clips]

    def judge(waveforms: Sequence[Tensor]) -> list[bool]:
        said = classifier.classify([clip_features(waveform, rate) for waveform in waveforms])
        right = [name == label_of(clip) for name, clip in zip(said, chosen, strict=True)]
        if modality == "music":
            for index, (clip, waveform) in enumerate(zip(chosen, waveforms, strict=True)):
                wanted = requested_tempo_bpm(clip.description)
                if wanted and right[index]:
                    tempo = measure_tempo_bpm(waveform.numpy(), rate)
                    right[index] = musical_requests.is_tempo_right_or_octave(tempo, wanted)
        return right

    meaning = "class of sound" if modality == "sound" else "instrument family, and tempo if named"
    return Measured(chosen, judge, meaning)


def label_function(modality: str) -> Callable[[HeldOutClip], str | None]:
    """What a clip of sound or music is judged by: its class, or the family of its instrument."""
    return sound_class if modality == "sound" else instrument_family


def trained_classifier(
    modality: str, pool: Sequence[HeldOutClip], bundle: Bundle
) -> tuple[Classifier, set[str]]:
    """A classifier of real training clips of a modality, and the labels that it knows."""
    label_of = label_function(modality)
    training = [c for c in pool if c.modality == modality and c.split == TRAINING and label_of(c)]
    training = training[:: max(1, len(training) // TRAINING_CLIPS)]
    labels = [label_of(clip) or "" for clip in training]
    rate = bundle.codec.timebase.sample_rate
    features = [clip_features(load_clip(clip, bundle.codec), rate) for clip in training]
    return Classifier(features, labels), set(trainable(labels))


def _heard(
    recogniser: WhisperRecogniser,
    clips: Sequence[HeldOutClip],
    bundle: Bundle,
    waveforms: Sequence[Tensor],
) -> list[bool]:
    rate = bundle.codec.timebase.sample_rate
    return [
        not count_errors(
            clip.transcript or "", recogniser.hear(waveform, rate, "en").text
        ).word_edits
        for clip, waveform in zip(clips, waveforms, strict=True)
    ]


if __name__ == "__main__":
    main()
