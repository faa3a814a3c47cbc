"""Voices that clients bring: embeddings of checked recordings, with a statement of consent."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.serving.errors import ApiError
from pipeline.storage import Folder

Embed = Callable[[str], Sequence[float]]
"""Speaker embedding of the recording at a path; raises `PipelineError` if it holds no voice."""

VOICE_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_SUFFIX = ".voice.json"


@dataclass(frozen=True)
class StoredVoice:
    """A voice that a client brought; the recording itself is not kept.

    Attributes:
        name: What requests call it.
        embedding: Speaker embedding.
        consent: The client's statement that the speaker agrees.
        created_at: When it came, seconds since 1970.
        added_by: Label of the API key that it came with; None without keys.
    """

    name: str
    embedding: tuple[float, ...]
    consent: str
    created_at: int
    added_by: str | None = None


class VoiceStore:
    """Voices in a folder that every ingress reaches, one JSON file each.

    Args:
        folder: Where they are.
        embed: Makes the embeddings.
        max_voices: Voices that it takes.
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
        """Make a voice of a recording.

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
        """Forget a voice; False if there is none of this name."""
        if self.get(name) is None:
            return False
        self._folder.delete(name + _SUFFIX)
        return True

    def _embedding(self, recording: bytes) -> tuple[float, ...]:
        with tempfile.TemporaryDirectory(prefix="audiocalm-voice-") as scratch:
            path = Path(scratch) / "recording"
            path.write_bytes(recording)
            try:
                return tuple(float(value) for value in self._embed(str(path)))
            except PipelineError as error:
                said = str(error).replace(f"{path} ", "the recording ")
                raise ApiError(400, said, "audio_sample") from error
