"""Another recording of the same speaker, with which a generated voice is compared."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence

from pipeline.evaluation.held_out import HeldOutClip
from pipeline.storage import Folder, iter_rows, read_tables

_LONG_ENOUGH_S = 2.0


def choose_references(
    chosen: Sequence[HeldOutClip], pool: Sequence[HeldOutClip], seed: int
) -> dict[str, HeldOutClip]:
    """Another clip of the same speaker for each speech clip, if there is one.

    Clips of two seconds or more are preferred; the seed decides among them.

    Args:
        chosen: Clips that are measured.
        pool: Clips of all splits; references are never generated, so training clips are allowed.
        seed: Seed of the choice.

    Returns:
        Reference by the id of the measured clip.
    """
    by_speaker: dict[str, list[HeldOutClip]] = defaultdict(list)
    for clip in pool:
        if clip.modality == "speech" and clip.speaker:
            by_speaker[clip.speaker].append(clip)

    def order(clip: HeldOutClip) -> tuple[bool, str]:
        """A sort key: long enough clips first, in an order that the seed draws."""
        drawn = hashlib.sha256(f"{seed}/{clip.clip_id}".encode()).hexdigest()
        return clip.duration_s < _LONG_ENOUGH_S, drawn

    for clips in by_speaker.values():
        clips.sort(key=order)
    found = {}
    for clip in chosen:
        if clip.modality != "speech" or not clip.speaker:
            continue
        others = (other for other in by_speaker[clip.speaker] if other.clip_id != clip.clip_id)
        if (reference := next(others, None)) is not None:
            found[clip.clip_id] = reference
    return found


def speaker_embeddings(latents: Folder, clip_ids: Collection[str]) -> dict[str, list[float]]:
    """Speaker embeddings that `encode` stored, by clip id; clips without one are left out.

    Raises:
        IncompleteError: If the directory is not complete.
    """
    latents.card("encode")
    table = read_tables(latents, latents.listed("parts/"), ["clip_id", "speaker_embedding"])
    return {
        row["clip_id"]: row["speaker_embedding"]
        for row in iter_rows(table)
        if row["clip_id"] in clip_ids and row["speaker_embedding"]
    }
