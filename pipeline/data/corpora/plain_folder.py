"""Audio files without any manifest: the last resort."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.audio.files import is_audio
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.file_names import is_audio_name, suffix_of
from pipeline.data.schema import ClipRow, Reject


class PlainFolder:
    """Every audio file at any depth is a clip without labels; the modality must be known."""

    layout = "folder"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether audio files lie in the folder itself."""
        return any(has_audio(folder, name) for name in folder.files)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every audio file; its path with the ending is the key."""
        for name in folder.names:
            if has_audio(folder, name):
                folder.claim(name)
                yield folder.clip(name, name, modality=None, place=Place(name))


def has_audio(folder: CorpusFolder, name: str) -> bool:
    """Whether a file is audio by the ending of its name or, without one, by its first bytes."""
    return is_audio_name(name) or (not suffix_of(name) and is_audio(folder.head(name)))
