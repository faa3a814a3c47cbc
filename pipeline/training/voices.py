"""Voices of a bundle out of the speakers of its training data."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from model.bundle.voices import Voice
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.training.shards import TrainShards


class VoiceChoice(Settings):
    """One entry of a voices recipe, which maps the names of voices to these."""

    speakers: Annotated[list[str], Field(min_length=1)]
    """Speakers of the training data who have this voice, as `corpus/speaker`; `*` stands for any
    characters. The voice is the mean of the embeddings of their clips."""
    description: str = ""
    """Description of this voice, in the form of a request's description."""


def most_heard_voices(shards: TrainShards, limit: int) -> dict[str, Voice]:
    """Voices of the speakers with most clips, named `corpus-speaker`."""
    speakers = list(shards.speakers().items())[:limit]
    return {name.replace("/", "-"): _voice(shards, rows) for name, rows in speakers}


def chosen_voices(shards: TrainShards, recipe: Mapping[str, Any]) -> dict[str, Voice]:
    """The voices that a recipe names.

    Args:
        shards: Training split of the training data.
        recipe: Fields of `VoiceChoice` by the name of the voice.

    Raises:
        SettingsError: If an entry is not valid, or no clip has a speaker that it names.
    """
    speakers = shards.speakers()
    found = {}
    for name, value in recipe.items():
        try:
            choice = VoiceChoice.model_validate(value)
        except ValidationError as error:
            raise SettingsError(f"voice {name!r}: {error}") from error
        for pattern in choice.speakers:
            if not any(fnmatchcase(speaker, pattern) for speaker in speakers):
                raise SettingsError(
                    f"voice {name!r} names the speaker {pattern!r}, and no clip of "
                    f"{shards.folder.uri} with a speaker embedding has one; there is "
                    f"{', '.join(list(speakers)[:8]) or 'none'}"
                )
        rows = [
            rows
            for speaker, rows in speakers.items()
            if any(fnmatchcase(speaker, pattern) for pattern in choice.speakers)
        ]
        found[name] = _voice(shards, np.concatenate(rows), choice.description)
    return found


def _voice(shards: TrainShards, rows: NDArray[np.int64], description: str = "") -> Voice:
    return Voice(torch.from_numpy(shards.embeddings.mean(rows)), description)
