"""The card of a bundle as Markdown, the text of its `README.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from model.bundle.request import sampling_defaults
from model.bundle.voices import Voice
from model.codec.protocol import AudioCodec
from model.config import model_config_from_dict

SHIPPED_CODEC = "shipped_codec"
"""Key in `bundle.json` of the name of a codec that comes with the package."""
DEFAULT_VOICE_KEY = "default_voice"
"""Key in the card of the name of the voice that words alone are spoken in."""


def render_card(
    manifest: Mapping[str, Any],
    codec: AudioCodec,
    voices: Mapping[str, Voice],
    *,
    num_parameters: int,
    precision: str,
) -> str:
    """The card as Markdown.

    Args:
        manifest: Contents of `bundle.json`; the fields of its card become sections.
        codec: Decodes the latents of the model.
        voices: Voices by name.
        num_parameters: Parameters of the model.
        precision: Type of the stored weights.
    """
    card, config = manifest["card"], model_config_from_dict(manifest["model"])
    delay_s = codec.timebase.duration_s(codec.delay_samples)
    codec_name = manifest.get(SHIPPED_CODEC, codec.name)
    lines = [
        f"# {card.get('name', 'AudioCALM bundle')}",
        "",
        "Speech, sound and music from a written description.",
        'Generate with `audiocalm generate --bundle . "Good morning." -o x.wav`; '
        "`bundle.json` is the machine-readable form of this card.",
        "",
        "| model | |",
        "|---|---|",
        f"| parameters | {num_parameters / 1e6:.1f} M, stored as {precision} |",
        f"| layers x width | {config.backbone.num_layers} x {config.backbone.hidden_dim} |",
        f"| frames per block | {config.frames_per_block} |",
        f"| latent width | {config.latent_dim} |",
        f"| codec | {codec_name}, {codec.timebase.sample_rate} Hz, {codec.num_channels} channels |",
        f"| latent frames | {codec.timebase.frame_rate:.2f} Hz |",
        f"| the codec's stream is late by | {1e3 * delay_s:.1f} ms |",
        f"| speech expert | {config.expert.placement} |",
        f"| tokenizer | {manifest['tokenizer']} |",
        *(
            f"| {modality} | {options.num_flow_steps} flow steps, "
            f"guidance {options.guidance_scale:g} |"
            for modality, options in sampling_defaults(manifest["sampling"]).items()
        ),
        "",
    ]
    for name, value in sorted(card.items()):
        shown = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True)
        body = shown if isinstance(value, str) else f"```json\n{shown}\n```"
        lines += [f"## {name}", "", body, ""]
    if voices:
        lines += ["## voices", "", "| name | description |", "|---|---|"]
        lines += [f"| {name} | {voice.description} |" for name, voice in sorted(voices.items())]
        lines += [""]
    lines += ["## Files", "", "| file | SHA-256 |", "|---|---|"]
    lines += [f"| {name} | `{value}` |" for name, value in sorted(manifest["files"].items())]
    return "\n".join(lines) + "\n"


def speaker_encoder_of(card: Mapping[str, Any]) -> str | None:
    """Name of the encoder whose speaker embeddings the model was trained on; None if unknown."""
    name = _entry(card, "shards", "speaker", "encoder")
    return name if isinstance(name, str) else None


def language_of(card: Mapping[str, Any]) -> str | None:
    """Language of the words where all training clips with words are in one; None otherwise."""
    hours = _entry(card, "shards", "hours", "by_language")
    return str(next(iter(hours))) if isinstance(hours, Mapping) and len(hours) == 1 else None


def default_voice_of(card: Mapping[str, Any], voices: Mapping[str, Voice]) -> str | None:
    """Name of the voice that words alone are spoken in; None if the card names none.

    Raises:
        ValueError: If it is none of the voices.
    """
    name = card.get(DEFAULT_VOICE_KEY)
    if name is not None and name not in voices:
        known = ", ".join(sorted(voices)) or "no voice"
        raise ValueError(f"{DEFAULT_VOICE_KEY} of the card is {name!r}; the bundle has {known}")
    return name


def _entry(card: Any, *path: str) -> Any:
    """A nested entry of a card, which may hold anything; None if it is not there."""
    for name in path:
        card = card.get(name) if isinstance(card, Mapping) else None
    return card
