"""Requests for the OpenAPI document; a test sends each of them."""

from __future__ import annotations

from fastapi.openapi.models import Example

GENERATION_EXAMPLES: dict[str, Example] = {
    "sound": {
        "summary": "Sound of a given duration",
        "value": {"description": "Rain falls on a tin roof.", "seconds": 5, "seed": 7},
    },
    "music": {
        "summary": "Two pieces of music to choose from, as FLAC",
        "value": {
            "description": "A slow waltz on a piano.",
            "modality": "music",
            "seconds": 8,
            "n": 2,
            "response_format": "flac",
        },
    },
    "words": {
        "summary": "Words in the default voice",
        "value": {"transcript": "The ferry leaves at seven."},
    },
    "speech": {
        "summary": "Words in a described voice, whole",
        "value": {
            "description": "An old man speaks slowly in a small room.",
            "transcript": "The ferry leaves at seven.",
            "language": "en",
            "response_format": "mp3",
            "stream": False,
        },
    },
}

SPEECH_EXAMPLES: dict[str, Example] = {
    "speech": {
        "summary": "Speech as MP3",
        "value": {"model": "tts-1", "voice": "alloy", "input": "The ferry leaves at seven."},
    },
    "events": {
        "summary": "Slower, as server-sent events",
        "value": {
            "model": "gpt-4o-mini-tts",
            "voice": "default",
            "input": "The ferry leaves at seven.",
            "instructions": "A calm woman.",
            "speed": 0.8,
            "response_format": "pcm",
            "stream_format": "sse",
        },
    },
}
