"""Measures of speech: words, stop errors, and voice similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation import intelligibility, intervals, voices
from pipeline.evaluation.listening import FORMS, Findings, Listening
from pipeline.evaluation.recogniser import Heard, Recogniser
from pipeline.evaluation.spoken_words import Errors, count_errors, has_words
from pipeline.evaluation.stops import KINDS, Spoken, speech_end_s, stop_error

DIGITS, STOPS, VOICES = "spoken digits", "stop errors", "voice similarity"
WORDS = "word and character error rate"
_NO_SPHINX = "the extra `eval` (pocketsphinx, jiwer, num2words) is not installed"
_NO_ASR = "no recogniser was given: --asr DIR with a Whisper model in CTranslate2 form"
_STOP_NOTES = {
    True: "judged by the recogniser's words and by durations",
    False: "judged by durations and silence alone, since no recogniser was given",
}


@dataclass(frozen=True)
class _Recognised:
    heard: Heard
    errors: Errors


def measure_speech(
    listenings: Sequence[Listening],
    rate: int,
    recogniser: Recogniser | None,
    *,
    american_spelling: bool = True,
    seed: int = 0,
) -> Findings:
    """Digits, error rates and stop errors.

    Args:
        listenings: Any clips; those of speech with a transcript are measured.
        rate: Sample rate of all waveforms, Hz.
        recogniser: For error rates; None leaves them out.
        american_spelling: Count British and American spellings as the same word.
        seed: Seed of the intervals.
    """
    spoken = [
        item
        for item in listenings
        if item.clip.modality == "speech" and has_words(item.clip.transcript or "")
    ]
    found = Findings()
    found.extend(_pocketsphinx(spoken, rate, seed))
    recognised: dict[str, list[_Recognised | None]] = {}
    if recogniser is None:
        found.skipped[WORDS] = _NO_ASR
    elif not any(_is_heard(item, recogniser) for item in spoken):
        found.skipped[WORDS] = f"{recogniser.name} knows the language of no clip"
    else:
        recognised = {
            form: [_recognise(item, form, rate, recogniser, american_spelling) for item in spoken]
            for form in FORMS
        }
        found.extend(_error_rates(spoken, recognised, recogniser.name, seed))
    found.extend(_stops(spoken, recognised, rate, seed))
    return found


def measure_voices(
    listenings: Sequence[Listening],
    references: Mapping[str, Tensor],
    rate: int,
    *,
    were_requested: bool,
    encoders: Sequence[voices.VoiceEncoder] | None = None,
    seed: int = 0,
) -> Findings:
    """Similarity to another recording of the same speaker, and that of other speakers.

    Args:
        listenings: Any clips; those with a reference are measured.
        references: Another recording of the clip's speaker, by clip id.
        rate: Sample rate of all waveforms, Hz.
        were_requested: Whether the model was given the reference, or its embedding.
        encoders: Speaker encoders; None uses all that are installed.
        seed: Seed of the intervals.
    """
    found = Findings()
    known = [item for item in listenings if item.clip.clip_id in references]
    if not known:
        found.skipped[VOICES] = "no speech clip has another recording of its speaker"
        return found
    asked = "given to the model" if were_requested else "described to the model in words only"
    for encoder in voices.encoders() if encoders is None else encoders:
        targets = [encoder.embed(references[item.clip.clip_id], rate) for item in known]
        values = {
            form: [
                voices.similarity(encoder.embed(item.form(form), rate), target)
                for item, target in zip(known, targets, strict=True)
            ]
            for form in FORMS
        }
        kind = "independent" if encoder.is_independent else "the conditioning encoder"
        estimates = {form: intervals.mean(values[form], seed) for form in FORMS}
        estimates["chance"] = intervals.mean(_strangers(known, targets), seed)
        found.add(
            "speech", f"{VOICES}, {encoder.name}", "higher", estimates,
            f"cosine to another recording of the speaker ({asked}); {kind}; chance is the "
            "recording of another speaker",
        )  # fmt: skip
    return found


def _strangers(known: Sequence[Listening], targets: Sequence[NDArray[np.float32]]) -> list[float]:
    """Similarity of each reference to the reference of another speaker."""
    values = []
    for place, item in enumerate(known):
        others = [*range(place + 1, len(known)), *range(place)]
        other = next((o for o in others if known[o].clip.speaker != item.clip.speaker), None)
        if other is not None:
            values.append(voices.similarity(targets[place], targets[other]))
    return values


def _pocketsphinx(spoken: Sequence[Listening], rate: int, seed: int) -> Findings:
    found = Findings()
    if not intelligibility.is_available():
        found.skipped[DIGITS] = _NO_SPHINX
        return found
    english = [item for item in spoken if (item.clip.language or "").startswith("en")]
    digits = [i for i in english if intelligibility.is_digit(i.clip.transcript or "")]
    others = [i for i in english if not intelligibility.is_digit(i.clip.transcript or "")]
    if digits:
        ear = intelligibility.Recogniser(single_digit=True)
        right = {
            form: [
                intelligibility.is_heard(i.form(form), rate, i.clip.transcript or "", ear)
                for i in digits
            ]
            for form in FORMS
        }
        found.add(
            "speech", DIGITS, "higher", {f: intervals.mean(right[f], seed) for f in FORMS},
            "share that pocketsphinx recognises among the ten digits",
        )  # fmt: skip
    else:
        found.skipped[DIGITS] = "no clip is one English digit"
    if others:
        ear = intelligibility.Recogniser()
        words = {
            form: [
                count_errors(i.clip.transcript or "", ear.transcribe(i.form(form), rate))
                for i in others
            ]
            for form in FORMS
        }
        found.add(
            "speech", "word error rate, pocketsphinx", "lower",
            {f: _word_rate(words[f], seed) for f in FORMS},
            "a small recogniser with many errors of its own: compare columns, not values",
        )  # fmt: skip
    return found


def _word_rate(errors: Sequence[Errors], seed: int) -> intervals.Estimate:
    return intervals.ratio([e.word_edits for e in errors], [e.words for e in errors], seed)


def _character_rate(errors: Sequence[Errors], seed: int) -> intervals.Estimate:
    edits, counts = [e.character_edits for e in errors], [e.characters for e in errors]
    return intervals.ratio(edits, counts, seed)


def _is_heard(item: Listening, recogniser: Recogniser) -> bool:
    return (item.clip.language or "").lower().split("-")[0] in recogniser.languages


def _recognise(
    item: Listening, form: str, rate: int, recogniser: Recogniser, american_spelling: bool
) -> _Recognised | None:
    if not _is_heard(item, recogniser):
        return None
    language, words = item.clip.language or "", item.clip.transcript or ""
    heard = recogniser.hear(item.form(form), rate, language.lower())
    errors = count_errors(words, heard.text, language, american_spelling=american_spelling)
    return _Recognised(heard, errors)


def _error_rates(
    spoken: Sequence[Listening],
    recognised: Mapping[str, Sequence[_Recognised | None]],
    name: str,
    seed: int,
) -> Findings:
    """Measure all sentences, and each corpus if there are several; digits are measured apart."""
    found = Findings()
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(spoken):
        if recognised["real"][place] is None:
            continue
        if intelligibility.is_digit(item.clip.transcript or ""):
            groups.setdefault("single digits", []).append(place)
        else:
            groups.setdefault("all sentences", []).append(place)
            groups.setdefault(item.clip.corpus, []).append(place)
    if sum(1 for group in groups if group not in ("single digits", "all sentences")) == 1:
        groups = {k: v for k, v in groups.items() if k in ("single digits", "all sentences")}
    for group, places in groups.items():
        errors = {
            form: [entry.errors for p in places if (entry := recognised[form][p]) is not None]
            for form in FORMS
        }
        for title, rate_of in (("word", _word_rate), ("character", _character_rate)):
            forms = {form: rate_of(errors[form], seed) for form in FORMS}
            found.add("speech", f"{title} error rate, {group}", "lower", forms, name)
    return found


def _stops(
    spoken: Sequence[Listening],
    recognised: Mapping[str, Sequence[_Recognised | None]],
    rate: int,
    seed: int,
) -> Findings:
    found = Findings()
    if not spoken:
        found.skipped[STOPS] = "no speech clip has a transcript"
        return found
    real_ends = [speech_end_s(item.real, rate) for item in spoken]
    kinds: dict[str, list[str | None]] = {form: [] for form in FORMS}
    for form in FORMS:
        for place, item in enumerate(spoken):
            entry = recognised[form][place] if recognised else None
            waveform = item.form(form)
            judged = Spoken(
                transcript=item.clip.transcript or "",
                duration_s=waveform.shape[-1] / rate,
                speech_ends_s=speech_end_s(waveform, rate),
                real_speech_s=real_ends[place],
                heard=entry.heard if entry else None,
                errors=entry.errors if entry else None,
            )
            kinds[form].append(stop_error(judged))
    note = _STOP_NOTES[bool(recognised)]
    total = {f: intervals.mean([k is not None for k in kinds[f]], seed) for f in FORMS}
    found.add("speech", STOPS, "lower", total, note)
    for kind in KINDS:
        shares = {f: intervals.mean([k == kind for k in kinds[f]], seed) for f in FORMS}
        found.add("speech", f"{STOPS}, {kind}", "lower", shares, note)
    return found
