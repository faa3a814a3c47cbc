"""How often clips are drawn: weights by modality, language and corpus, also from a mixture file.

The weight of a modality is its share of the stream. The weights of language and corpus multiply how
often a clip is drawn among the clips of its modality: 2 means twice as often, 0 never. Names that
are not listed have weight 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.errors import SettingsError
from pipeline.settings import Settings, load_settings
from pipeline.training.order import Group
from pipeline.training.settings import Factor, TrainSettings

NO_LANGUAGE = "none"
"""Name for clips without a language."""


class Mixture(Settings):
    """A mixture file."""

    modality: dict[str, Factor] | None = None
    """Share of each modality in the stream; see `FeedSettings.modality_weights`."""
    language: dict[str, Factor] = Field(default_factory=dict)
    """Factor of each language; `none` stands for clips without a language."""
    corpus: dict[str, Factor] = Field(default_factory=dict)
    """Factor of each corpus."""


def with_mixture(settings: TrainSettings, path: str | Path) -> TrainSettings:
    """The settings with the weights of a mixture file in place of their own.

    Raises:
        SettingsError: If the file cannot be read, or holds unknown keys or negative weights.
    """
    mixture = load_settings(Mixture, path)
    values = settings.model_dump()
    values["feed"] |= {
        "modality_weights": mixture.modality,
        "language_weights": mixture.language,
        "corpus_weights": mixture.corpus,
    }
    try:
        return TrainSettings.model_validate(values)
    except ValueError as error:
        raise SettingsError(f"mixture {path}: {error}") from error


def weighted_groups(
    rows: Mapping[str, NDArray[np.int64]],
    columns: Mapping[str, NDArray[np.object_]],
    weights: Mapping[str, Mapping[str, float]],
) -> dict[str, list[Group]]:
    """Clips of every modality, in groups of equal weight.

    Args:
        rows: Index rows by modality.
        columns: `language` and `corpus` of every row of the index.
        weights: Factors by name, of `language` and of `corpus`.

    Raises:
        SettingsError: If a weight names a language or corpus that no clip has.
    """
    names = {
        column: np.array(
            [NO_LANGUAGE if value is None else str(value) for value in columns[column]]
        )
        for column, given in weights.items()
        if given
    }
    for column, found in names.items():
        _check_known(column, weights[column], np.unique(found).tolist())
    return {modality: _divide(chosen, names, weights) for modality, chosen in rows.items()}


def _divide(
    rows: NDArray[np.int64],
    names: Mapping[str, NDArray[np.str_]],
    weights: Mapping[str, Mapping[str, float]],
) -> list[Group]:
    if not names or not len(rows):
        return [Group("", rows)]
    labels = np.stack([found[rows] for found in names.values()], axis=1)
    kinds, kind_of = np.unique(labels, axis=0, return_inverse=True)
    groups = []
    for number, kind in enumerate(kinds):
        weight = 1.0
        for column, name in zip(names, kind, strict=True):
            weight *= weights[column].get(str(name), 1.0)
        groups.append(Group("/".join(map(str, kind)), rows[kind_of.ravel() == number], weight))
    return groups


def _check_known(column: str, weights: Mapping[str, float], known: Sequence[str]) -> None:
    unknown = sorted(set(weights) - set(known))
    if unknown:
        raise SettingsError(
            f"{column}_weights names {unknown}, which no clip of the shards has; known are "
            f"{list(known)}"
        )
