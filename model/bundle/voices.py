"""Named voices: embeddings with descriptions in a safetensors file; the voice of bare words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

_METADATA = "__metadata__"
_LENGTH_BYTES = 8
"""A safetensors file starts with the length of its JSON header, little-endian."""
_ALIGNMENT = 8
"""The values of a safetensors file begin at a multiple of this."""


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice that a request can name.

    Attributes:
        embedding: Speaker embedding, as the model was trained on them.
        description: What speech in this voice sounds like, in the form of a request's description;
            empty where nobody has said.
    """

    embedding: Float[Tensor, " speaker_dim"]
    description: str = ""


def spoken_as(
    voice: str | None,
    description: str | None,
    voices: Mapping[str, Voice],
    *,
    default_voice: str | None,
    default_description: str,
) -> tuple[str | None, str]:
    """Voice and description of speech, where a request leaves them open.

    Words with neither a voice nor a description are spoken in the default voice. Words with a
    description alone have no named voice: the description shapes it.

    Args:
        voice: Voice that the request names; None leaves it open. It may be unknown here.
        description: Description in the request; None leaves it open.
        voices: Known voices by name.
        default_voice: Name of the default voice; None has none.
        default_description: Description where neither the request nor its voice has one.

    Returns:
        Name of the voice, or None, and the description.
    """
    if description is not None:
        return voice, description
    voice = voice or default_voice
    known = None if voice is None else voices.get(voice)
    own = "" if known is None else known.description
    return voice, own or default_description


def voices_to_bytes(voices: Mapping[str, Voice]) -> bytes:
    """A safetensors file with the embeddings by name, and the descriptions as its metadata.

    Equal voices give equal bytes: the library writes metadata in a random order.
    """
    tensors = {name: voice.embedding.float().cpu().contiguous() for name, voice in voices.items()}
    described = {name: voice.description for name, voice in voices.items() if voice.description}
    payload = bytes(save(tensors, described or None))
    end = _header_end(payload)
    header = json.dumps(json.loads(payload[_LENGTH_BYTES:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + payload[end:]


def voices_from_bytes(payload: bytes) -> dict[str, Voice]:
    """Voices by name; a file without metadata holds voices without descriptions."""
    described = json.loads(payload[_LENGTH_BYTES : _header_end(payload)]).get(_METADATA, {})
    return {
        name: Voice(embedding, described.get(name, "")) for name, embedding in load(payload).items()
    }


def _header_end(payload: bytes) -> int:
    """Where the header of a safetensors file ends and its values begin."""
    return _LENGTH_BYTES + int.from_bytes(payload[:_LENGTH_BYTES], "little")
