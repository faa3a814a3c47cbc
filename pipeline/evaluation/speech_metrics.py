"""Figures of speech: what recognisers hear, word errors, and stop errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.evaluation import intelligibility, whisper_text
from pipeline.evaluation.findings import FORMS, Evidence, Findings, Measure, Observed, Values
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric
from pipeline.evaluation.recogniser import Heard, Recogniser
from pipeline.evaluation.spoken_words import Errors, count_errors, has_words
from pipeline.evaluation.stops import KINDS, Spoken, speech_end_s, stop_error

DIGITS, STOPS = "spoken digits", "stop errors"
WORDS = "word and character error rate"
SPHINX, WHISPER = "pocketsphinx", "words"
NO_SPHINX = "the extra `eval` (pocketsphinx, jiwer, num2words) is not installed"
NO_ASR = "no recogniser was given: --asr DIR with a Whisper model in CTranslate2 form"
ALL_SENTENCES, SINGLE_DIGITS = "all sentences", "single digits"
_STOP_NOTES = {
    True: "judged by the recogniser's words and by durations",
    False: "judged by durations and silence alone, since no recogniser was given",
}


def is_spoken(clip: HeldOutClip) -> bool:
    """Whether a clip is speech with words."""
    return clip.modality == "speech" and has_words(clip.transcript or "")


class SphinxMetric(Metric):
    """Accuracy on English digits, and word errors, by pocketsphinx."""

    name = SPHINX
    version = "2"

    def __init__(self) -> None:
        self._decoders: dict[bool, intelligibility.Recogniser] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded models, which cannot be pickled."""
        return {"_decoders": {}}

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether a clip is English speech with words."""
        return is_spoken(clip) and (clip.language or "").startswith("en")

    def observe(self, item: Listening, form: str) -> str:
        """Words heard; for a digit, the likeliest of the ten."""
        is_digit = intelligibility.is_digit(item.clip.transcript or "")
        if is_digit not in self._decoders:
            self._decoders[is_digit] = intelligibility.Recogniser(single_digit=is_digit)
        return self._decoders[is_digit].transcribe(item.form(form), item.sample_rate)

    def summarise(self, evidence: Evidence) -> Findings:
        """Digit accuracy, and the word error rate of all other transcripts."""
        found = Findings()
        clips = evidence.seen_by(SPHINX)
        digits = [o for o in clips if intelligibility.is_digit(o.clip.transcript or "")]
        others = [o for o in clips if not intelligibility.is_digit(o.clip.transcript or "")]
        if digits:
            right = {
                form: {
                    o.clip.clip_id: o.of(SPHINX, form)
                    == intelligibility.normalise(o.clip.transcript or "")
                    for o in digits
                }
                for form in FORMS
            }
            found.add("speech", DIGITS, "higher", right, "share that pocketsphinx recognises "
                      "among the ten digits")  # fmt: skip
        else:
            found.skipped[DIGITS] = "no clip is one English digit"
        if others:
            rates = {
                form: {
                    o.clip.clip_id: _rate(
                        count_errors(o.clip.transcript or "", o.of(SPHINX, form)), "word"
                    )
                    for o in others
                }
                for form in FORMS
            }
            found.measures.append(Measure(
                "speech", "word error rate, pocketsphinx", "lower", rates,
                "a small recogniser with many errors of its own: compare columns, not values",
            ))  # fmt: skip
        return found


class WordsMetric(Metric):
    """Word and character errors by a recogniser, and skipped and repeated words."""

    name = WHISPER

    def __init__(self, recogniser: Recogniser, *, american_spelling: bool = True) -> None:
        """Measure with a recogniser.

        Args:
            recogniser: Picklable, if the evaluation has worker processes.
            american_spelling: Count British and American spellings as the same word.
        """
        self._recogniser = recogniser
        self._american_spelling = american_spelling
        self.version = recogniser.version

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether a clip is speech in a language of the recogniser."""
        language = (clip.language or "").lower().split("-")[0]
        return is_spoken(clip) and language in self._recogniser.languages

    def observe(self, item: Listening, form: str) -> dict[str, Any]:
        """Text and the end of each word."""
        language = (item.clip.language or "").lower()
        heard = self._recogniser.hear(item.form(form), item.sample_rate, language)
        return {"text": heard.text, "word_ends_s": list(heard.word_ends_s)}

    def summarise(self, evidence: Evidence) -> Findings:
        """Error rates over all sentences, over digits, and over each corpus if there are more."""
        found = Findings()
        clips = evidence.seen_by(WHISPER)
        if not clips:
            found.skipped[WORDS] = f"{self._recogniser.name} knows the language of no clip"
            return found
        errors = {
            form: {o.clip.clip_id: self.errors(o, form) for o in clips} for form in FORMS
        }  # fmt: skip
        for group, members in _groups(clips).items():
            for kind in ("word", "character"):
                rates = {
                    form: {o.clip.clip_id: _rate(errors[form][o.clip.clip_id], kind)
                           for o in members}
                    for form in FORMS
                }  # fmt: skip
                title = f"{kind} error rate, {group}"
                found.measures.append(
                    Measure("speech", title, "lower", rates, self._recogniser.name)
                )
            if group == ALL_SENTENCES:
                found.extend(self._by_alignment(members, errors))
                found.extend(self._published_form(members))
        return found

    def errors(self, item: Observed, form: str) -> Errors:
        """Differences between what was heard and the transcript."""
        clip = item.clip
        return count_errors(
            clip.transcript or "",
            item.of(WHISPER, form)["text"],
            clip.language or "",
            american_spelling=self._american_spelling,
        )

    def _by_alignment(
        self, clips: Sequence[Observed], errors: dict[str, dict[str, Errors]]
    ) -> Findings:
        found = Findings()
        for kind in ("skipped", "repeated"):
            rates = {
                form: {
                    o.clip.clip_id: (
                        float(getattr(errors[form][o.clip.clip_id], kind)),
                        float(errors[form][o.clip.clip_id].words),
                    )
                    for o in clips
                }
                for form in FORMS
            }
            found.measures.append(Measure(
                "speech", f"{kind} words, share of the words", "lower", rates,
                f"from the alignment of {self._recogniser.name} with the transcript",
            ))  # fmt: skip
        return found

    def _published_form(self, clips: Sequence[Observed]) -> Findings:
        """Word error rate with the normalisation that published figures use."""
        found, name = Findings(), f"word error rate, {ALL_SENTENCES}, Whisper normaliser"
        if not whisper_text.is_available():
            found.skipped[name] = "transformers is not installed: install the extra `eval`"
            return found
        rates: dict[str, Values] = {}
        for form in FORMS:
            counted = {
                o.clip.clip_id: whisper_text.count_word_errors(
                    o.clip.transcript or "", o.of(WHISPER, form)["text"],
                    o.clip.language or "", self._recogniser.spelling,
                )
                for o in clips
            }  # fmt: skip
            rates[form] = {
                name: (float(pair[0]), float(pair[1])) for name, pair in counted.items() if pair
            }
        found.measures.append(Measure("speech", name, "lower", rates, self._recogniser.name))
        return found


class StopMetric(Metric):
    """Speech that ends early, late or not at all; uses the words of a recogniser if there are."""

    name = "stops"

    def __init__(self, words: WordsMetric | None = None) -> None:
        self._words = words

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether a clip is speech with words."""
        return is_spoken(clip)

    def observe(self, item: Listening, form: str) -> dict[str, float]:
        """Duration, and the end of the last audible frame."""
        waveform = item.form(form)
        return {
            "duration_s": waveform.shape[-1] / item.sample_rate,
            "speech_ends_s": speech_end_s(waveform, item.sample_rate),
        }

    def summarise(self, evidence: Evidence) -> Findings:
        """Share of clips with any stop error, and with each kind."""
        found = Findings()
        clips = evidence.seen_by(self.name)
        if not clips:
            found.skipped[STOPS] = "no speech clip has a transcript"
            return found
        kinds = {form: {o.clip.clip_id: self._kind(o, form) for o in clips} for form in FORMS}
        is_heard = self._words is not None and any(o.has(WHISPER) for o in clips)
        note = _STOP_NOTES[is_heard]
        total = {f: {name: kind is not None for name, kind in kinds[f].items()} for f in FORMS}
        found.add("speech", STOPS, "lower", total, note)
        for wanted in KINDS:
            shares = {f: {name: kind == wanted for name, kind in kinds[f].items()} for f in FORMS}
            found.add("speech", f"{STOPS}, {wanted}", "lower", shares, note)
        return found

    def _kind(self, item: Observed, form: str) -> str | None:
        seen = item.of(self.name, form)
        heard, errors = None, None
        if self._words is not None and item.has(WHISPER):
            said = item.of(WHISPER, form)
            heard = Heard(said["text"], tuple(said["word_ends_s"]))
            errors = self._words.errors(item, form)
        return stop_error(
            Spoken(
                transcript=item.clip.transcript or "",
                duration_s=seen["duration_s"],
                speech_ends_s=seen["speech_ends_s"],
                real_speech_s=item.of(self.name, "real")["speech_ends_s"],
                heard=heard,
                errors=errors,
            )
        )


def heard_words(evidence: Evidence) -> dict[str, dict[str, str]]:
    """What the recogniser heard, by clip id and form; empty without one."""
    return {
        o.clip.clip_id: {form: o.of(WHISPER, form)["text"].strip() for form in FORMS}
        for o in evidence.seen_by(WHISPER)
    }


def _rate(errors: Errors, kind: str) -> tuple[float, float]:
    if kind == "word":
        return float(errors.word_edits), float(errors.words)
    return float(errors.character_edits), float(errors.characters)


def _groups(clips: Sequence[Observed]) -> dict[str, list[Observed]]:
    """All sentences, single digits, and each corpus of sentences if there are several."""
    corpora: dict[str, list[Observed]] = {}
    groups: dict[str, list[Observed]] = {}
    for item in clips:
        if intelligibility.is_digit(item.clip.transcript or ""):
            groups.setdefault(SINGLE_DIGITS, []).append(item)
        else:
            groups.setdefault(ALL_SENTENCES, []).append(item)
            corpora.setdefault(item.clip.corpus, []).append(item)
    return groups | (corpora if len(corpora) > 1 else {})
