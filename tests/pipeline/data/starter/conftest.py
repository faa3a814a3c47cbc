"""One small corpus for all tests that read what is on disk."""

from __future__ import annotations

import pytest

from pipeline.data.starter.settings import StarterSettings
from pipeline.data.starter.write import Corpus, write_corpus


@pytest.fixture(scope="session")
def minute_settings() -> StarterSettings:
    return StarterSettings(minutes=1.0, seed=3)


@pytest.fixture(scope="session")
def minute_corpus(
    tmp_path_factory: pytest.TempPathFactory, minute_settings: StarterSettings
) -> Corpus:
    folder = tmp_path_factory.mktemp("starter") / "corpus"
    return write_corpus(folder, minute_settings, processes=1)
