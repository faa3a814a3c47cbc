"""What a bundle makes of requests that nobody fitted to its corpus: `free_requests.yaml`.

A classifier of real training clips judges sounds by class and music by instrument family, a beat
tracker its tempo, half and double allowed. Classes that the data has not are left out.

    python -m tests.bench.free_requests --bundle DIR --data DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from model.bundle.bundle import Bundle, load_bundle
from pipeline.acoustics.attributes import measure_tempo_bpm
from pipeline.evaluation import intervals, musical_requests
from pipeline.evaluation.classifier import clip_features
from pipeline.evaluation.held_out import HeldOutClip, described_clips
from pipeline.storage import Folder
from tests.bench.sampling import MAX_DURATION_S, generate, trained_classifier

REQUESTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
"""Requests for sounds by class, and for music with the instrument and tempo that they name."""
DURATION_S = 4.0


def main() -> None:
    """Print a table, and the sounds that were taken for something else."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.free_requests")
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--data", required=True, help="what `prepare` left")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle, data = load_bundle(options.bundle), Folder.at(options.data)
    pool = described_clips(data.child("clips"), data.child("descriptions"), MAX_DURATION_S)
    print("| what | right | 95 % |\n|---|---|---|")
    wrong = _sounds(pool, bundle)
    _music(pool, bundle)
    print("\n".join(["", *wrong]))


def _sounds(pool: Sequence[HeldOutClip], bundle: Bundle) -> list[str]:
    classifier, known = trained_classifier("sound", pool, bundle)
    asked = [
        (request, name)
        for name, requests in REQUESTS["sounds"].items()
        for request in requests
        if name in known
    ]
    made = generate(bundle, [_clip("sound", request) for request, _ in asked])
    rate = bundle.codec.timebase.sample_rate
    said = classifier.classify([clip_features(waveform, rate) for waveform in made])
    _print("class of sound", [name == heard for (_, name), heard in zip(asked, said, strict=True)])
    return [
        f"{request}: {heard} instead of {name}"
        for (request, name), heard in zip(asked, said, strict=True)
        if heard != name
    ]


def _music(pool: Sequence[HeldOutClip], bundle: Bundle) -> None:
    classifier, known = trained_classifier("music", pool, bundle)
    made = generate(bundle, [_clip("music", asked["request"]) for asked in REQUESTS["music"]])
    rate = bundle.codec.timebase.sample_rate
    said = classifier.classify([clip_features(waveform, rate) for waveform in made])
    families, tempi = [], []
    for asked, waveform, heard in zip(REQUESTS["music"], made, said, strict=True):
        family = musical_requests.requested_family(asked.get("instrument", ""))
        if family in known:
            families.append(heard == family)
        if "tempo_bpm" in asked:
            tempi.append(_has_tempo(waveform, rate, asked["tempo_bpm"]))
    _print("family of the instrument", families)
    _print("tempo", tempi)


def _has_tempo(waveform: Tensor, rate: int, wanted_bpm: float) -> bool:
    measured = measure_tempo_bpm(waveform.numpy(), rate)
    return musical_requests.is_tempo_right_or_octave(measured, wanted_bpm)


def _clip(modality: str, request: str) -> HeldOutClip:
    return HeldOutClip(request, "", None, None, DURATION_S, modality, None, "test", request, None)


def _print(what: str, right: Sequence[bool]) -> None:
    share = intervals.mean(right)
    print(f"| {what} | {sum(right)} of {len(right)} | {share['low']:.2f} to {share['high']:.2f} |")


if __name__ == "__main__":
    main()
