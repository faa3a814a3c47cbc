"""Metadata of generated files: generator, model and seed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class Provenance:
    """Tags of a file, in the containers that have tags: MP3, Ogg, FLAC and WAV.

    Attributes:
        comment: States that the audio is AI-generated, with the other three.
        generator: Software and its version.
        model: SHA-256 of the bundle.
        seed: Seed of the request.
    """

    comment: str
    generator: str
    model: str
    seed: str


def provenance_of(model: str, seed: int) -> Provenance:
    """The tags of one piece of audio.

    Args:
        model: SHA-256 of the bundle that generated it.
        seed: Seed of the request.
    """
    generator = f"AudioCALM {version('audiocalm')}"
    comment = f"AI-generated audio; generator {generator}; model {model}; seed {seed}"
    return Provenance(comment, generator, model, str(seed))
