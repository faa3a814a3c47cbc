from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import SettingsError
from pipeline.settings import load_settings
from pipeline.training.mixture import weighted_groups, with_mixture
from pipeline.training.settings import TrainSettings

ROWS = {"speech": np.array([0, 1, 2, 5]), "sound": np.array([3, 4])}
COLUMNS = {
    "language": np.array(["en", "de", "en", None, None, "de"], dtype=object),
    "corpus": np.array(["a.v1", "a.v1", "b", "c", "c", "b"], dtype=object),
}


def _groups(**weights):
    return weighted_groups(ROWS, COLUMNS, {"language": {}, "corpus": {}, **weights})


def test_without_weights_a_modality_is_one_group():
    groups = _groups()
    assert {name: [list(g.rows) for g in found] for name, found in groups.items()} == {
        "speech": [[0, 1, 2, 5]],
        "sound": [[3, 4]],
    }


def test_factors_of_language_and_corpus_multiply():
    groups = _groups(language={"de": 2.0, "none": 0.5}, corpus={"b": 3.0})
    found = {tuple(g.rows): g.weight for found in groups.values() for g in found}
    assert found == {(0,): 1.0, (1,): 2.0, (2,): 3.0, (5,): 6.0, (3, 4): 0.5}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"language": {"fr": 1.0}}, r"language_weights names \['fr'\].*\['de', 'en', 'none'\]"),
        ({"corpus": {"a": 1.0}}, r"corpus_weights names \['a'\].*'a.v1', 'b', 'c'"),
    ],
)  # fmt: skip
def test_unknown_names_are_errors_with_the_known_ones(weights, message):
    with pytest.raises(SettingsError, match=message):
        _groups(**weights)


def test_a_mixture_file_takes_the_place_of_the_weights(tmp_path):
    path = tmp_path / "mixture.yaml"
    path.write_text("modality: {speech: 2, music: 1}\nlanguage: {de: 3}\ncorpus: {a.v1: 0}\n")
    base = load_settings(TrainSettings, None, ["feed.corpus_weights.b=4", "seed=5"])
    settings = with_mixture(base, path)
    assert settings.feed.modality_weights == {"speech": 2.0, "music": 1.0}
    assert settings.feed.language_weights == {"de": 3.0}
    assert settings.feed.corpus_weights == {"a.v1": 0.0}
    assert settings.seed == 5
    assert settings.identity() != base.identity()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modality: {speach: 1}", "speach"),
        ("language: {de: -1}", "greater than or equal to 0"),
        ("corpora: {a: 1}", "did you mean 'corpus'"),
        ("corpus: {a: much}", "valid number"),
        ("modality: {speech: 0}", "all 0"),
    ],
)
def test_a_wrong_mixture_names_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "mixture.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        with_mixture(TrainSettings(), path)


def test_runs_without_a_mixture_keep_their_identity():
    plain = TrainSettings()
    assert plain.identity() == "fbccec5471c8fae00ac899460e94fef429a8119558f5f39a07608ccd3b1a2974", (
        "runs must stay resumable"
    )
    weighted = load_settings(TrainSettings, None, ["feed.language_weights.de=1"])
    assert weighted.identity() != plain.identity()
