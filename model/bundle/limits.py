"""What one request may ask for; apart from torch, so that a front end can know it without."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_description_chars: Characters of a description.
        max_transcript_chars: Characters of a transcript.
        min_duration_s: Shortest audio, seconds.
        max_duration_s: Longest audio, seconds; also caps speech that does not stop by itself.
        max_flow_steps: Solver steps for each block.
        max_guidance_scale: Guidance.
    """

    max_description_chars: int = 2000
    max_transcript_chars: int = 4096
    min_duration_s: float = 0.1
    max_duration_s: float = 120.0
    max_flow_steps: int = 256
    max_guidance_scale: float = 20.0
