"""Words, skipped and repeated words, and stops are counted from what recognisers heard."""

import torch
from torch import Tensor

from pipeline.evaluation.findings import Evidence, Observed
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.recogniser import Heard
from pipeline.evaluation.speech_metrics import StopMetric, WordsMetric
from tests.factories.evaluation import figures, findings_of, held_out_clip

RATE = 8000


class Scripted:
    """Hears what the clip's id says, in generated audio, which is marked by its first sample."""

    name = "scripted"
    languages = ("en",)
    version = "1"
    spelling = None

    def __init__(self, heard: str) -> None:
        self._heard = heard

    def hear(self, waveform: Tensor, sample_rate: int, language: str) -> Heard:
        text = self._heard if float(waveform[0, 0]) > 0 else "The rain has stopped."
        ends_s = tuple(0.2 * place for place, _ in enumerate(text.split(), 1))
        return Heard(text, ends_s)


def listen(transcript: str = "The rain has stopped.", **changes: object) -> Listening:
    quiet, marked = torch.zeros(1, RATE), torch.zeros(1, RATE)
    marked[0, 0] = 0.5
    return Listening(held_out_clip(transcript=transcript, **changes), RATE, quiet, quiet, marked)


def test_skipped_and_repeated_words_are_shares_of_the_transcript() -> None:
    metric = WordsMetric(Scripted("the rain the rain has stopped the hills"))
    item = listen("The rain has stopped over the hills.")
    found = figures(findings_of(metric, [item]))
    assert found["word error rate, all sentences"]["generated"] == 3 / 7
    assert found["skipped words, share of the words"]["generated"] == 1 / 7
    assert found["repeated words, share of the words"]["generated"] == 2 / 7
    assert found["skipped words, share of the words"]["real"] == 3 / 7  # "over the hills"


def test_rates_are_those_of_all_words_together_and_of_each_corpus() -> None:
    metric = WordsMetric(Scripted("the rain"))
    items = [listen(clip_id="a", corpus="x"), listen("the rain", clip_id="b", corpus="y")]
    found = figures(findings_of(metric, items))
    assert found["word error rate, all sentences"]["generated"] == 2 / 6
    assert found["word error rate, x"]["generated"] == 0.5
    assert found["word error rate, y"]["generated"] == 0
    assert found["word error rate, all sentences, Whisper normaliser"]["generated"] == 2 / 6


def test_an_unknown_language_is_a_reason() -> None:
    found = findings_of(WordsMetric(Scripted("")), [listen(language="fi")])
    assert found.measures == []
    assert (
        found.skipped["word and character error rate"] == "scripted knows the language of no clip"
    )


def test_stops_use_the_words_that_were_heard() -> None:
    words = WordsMetric(Scripted("the rain"))
    stops = StopMetric(words)
    item = listen()
    seen = {
        metric.name: {form: metric.observe(item, form) for form in ("real", "reconstructed",
                                                                    "generated")}
        for metric in (words, stops)
    }  # fmt: skip
    found = figures(stops.summarise(Evidence([Observed(item.clip, seen)])))
    assert found["stop errors, early"]["generated"] == 1
    assert found["stop errors"]["real"] == 0
