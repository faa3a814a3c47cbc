"""Uploaded voices: speaker embeddings with a statement of consent."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass

from pipeline.serving.errors import ApiError
from pipeline.serving.schemas import VOICE_NAME
from pipeline.serving.uploads import Embed, uploaded
from pipeline.storage import Folder

_SUFFIX = ".voice.json"


@dataclass(frozen=True)
class StoredVoice:
    """An uploaded voice; the recording itself is not kept.

    Attributes:
        name: What requests call it.
        embedding: Speaker embedding.
        consent: The client's statement that the speaker agrees.
        created_at: Time of the upload, seconds since 1970.
        added_by: Label of the API key of the upload; None without keys.
    """

    name: str
    embedding: tuple[float, ...]
    consent: str
    created_at: int
    added_by: str | None = None


class VoiceStore:
    """Store of uploaded voices in a folder that every ingress can reach, one JSON file each.

    Args:
        folder: Folder of the files.
        embed: Computes the speaker embedding of a recording.
        max_voices: Maximum number of voices.
    """

    def __init__(self, folder: Folder, embed: Embed, max_voices: int) -> None:
        self._folder = folder
        self._embed = embed
        self._max_voices = max_voices

    def names(self) -> list[str]:
        """Names of all voices, sorted."""
        return sorted(name.removesuffix(_SUFFIX) for name in self._folder.files(_SUFFIX))

    def get(self, name: str) -> StoredVoice | None:
        """A voice; None if there is none of this name."""
        if not re.fullmatch(VOICE_NAME, name):
            return None
        try:
            fields = self._folder.read_json(name + _SUFFIX)
        except FileNotFoundError:
            return None
        return StoredVoice(**{**fields, "embedding": tuple(fields["embedding"])})

    def add(self, name: str, recording: bytes, consent: str, added_by: str | None) -> StoredVoice:
        """Store a voice made from a recording.

        Args:
            name: What requests will call it.
            recording: An audio file in any common format.
            consent: The client's statement that the speaker agrees.
            added_by: Label of the API key.

        Raises:
            ApiError: If the name is taken, the store is full or the recording holds no voice.
        """
        names = self.names()
        if name in names:
            raise ApiError(409, f"{name!r} is there already; delete it first", "name", "conflict")
        if len(names) >= self._max_voices:
            raise ApiError(
                409,
                f"there are {len(names)} voices already, and {self._max_voices} are kept; delete "
                "one first",
                code="conflict",
            )
        voice = StoredVoice(name, self._embedding(recording), consent, int(time.time()), added_by)
        self._folder.write_json(name + _SUFFIX, asdict(voice))
        return voice

    def delete(self, name: str) -> bool:
        """Delete a voice; returns False if there is none of this name."""
        if self.get(name) is None:
            return False
        self._folder.delete(name + _SUFFIX)
        return True

    def _embedding(self, recording: bytes) -> tuple[float, ...]:
        with uploaded(recording, "audio_sample") as path:
            return tuple(float(value) for value in self._embed(path))
