"""Tempo that a description of music names, and the rotary positions that follow from it.

Music repeats in beats, not in seconds. Where a description names beats per minute, its frames stand
at positions counted in beats: attention then finds what was played a beat or a bar ago at the same
distance at every tempo.
"""

from __future__ import annotations

import re

from model.config import ModelConfig
from model.text import Prompt
from model.timebase import Timebase

POSITIONS_PER_BEAT = 12
"""Rotary positions of one beat. A choice: its halves, thirds and quarters stand at whole positions,
and at 25 frames a second and 125 beats a minute a frame takes one, as without a tempo."""
TEMPO_RANGE_BPM = (30.0, 300.0)
"""Tempi outside of this range move no positions."""
_TEMPO = re.compile(r"\b(\d{2,3}(?:\.\d+)?)\s*(?:-\s*)?(?:bpm\b|beats per minute\b)", re.IGNORECASE)


def requested_tempo_bpm(description: str) -> float | None:
    """Beats per minute that a description names; None if it names none, or several."""
    found = {float(tempo) for tempo in _TEMPO.findall(description)}
    return found.pop() if len(found) == 1 else None


def position_rate(prompt: Prompt, config: ModelConfig, timebase: Timebase) -> float:
    """Rotary positions from one frame to the next; 1 unless the model paces music at a tempo."""
    if not config.paces_music or prompt.transcript is not None:
        return 1.0
    tempo = requested_tempo_bpm(prompt.description)
    if tempo is None or not TEMPO_RANGE_BPM[0] <= tempo <= TEMPO_RANGE_BPM[1]:
        return 1.0
    return POSITIONS_PER_BEAT * tempo / 60 / timebase.frame_rate
