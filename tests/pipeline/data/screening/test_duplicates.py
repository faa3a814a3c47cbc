from __future__ import annotations

import tempfile

import numpy as np

from pipeline.data.screening import duplicates
from pipeline.data.screening.duplicates import Rank, Recordings


def words(seed: int, errors: float = 0.0, count: int = 100):
    """Random words, of whose bits a share is flipped."""
    generator = np.random.default_rng(seed)
    fixed = generator.integers(1, 2**32, count, dtype=np.uint32)
    noise = np.random.default_rng(1000 + seed).random((count, 32)) < errors
    flips = np.packbits(noise, axis=1, bitorder="little").view("<u4")[:, 0]
    return np.maximum(fixed ^ flips, 1).astype(np.uint32)


def group(*clips, max_error_rate=0.2, **how):
    recordings = Recordings(max_error_rate, **how)
    for fingerprint, duration_s, found in clips:
        recordings.add(fingerprint, duration_s, found)
    return sorted(recordings.groups())


def test_equal_samples_and_near_fingerprints_are_one_recording():
    clips = [
        ("a", 5.0, words(1)),
        ("b", 5.0, words(2)),
        ("a", 5.0, words(1)),
        ("c", 5.05, words(2, 0.1)),
        ("d", 5.0, words(3)),
    ]
    assert group(*clips) == [[0, 2], [1, 3]]
    assert group(*clips, max_error_rate=0.0) == [[0, 2]]


def test_a_chain_of_copies_is_one_recording():
    clips = [("a", 5.0, words(1)), ("b", 5.0, words(1, 0.05)), ("b", 5.0, words(1, 0.05))]
    assert group(*clips) == [[0, 1, 2]]


def test_other_durations_are_other_recordings():
    assert group(("a", 5.0, words(1)), ("b", 5.3, words(1, 0.02))) == []


def test_no_fingerprint_is_like_no_other():
    none = np.zeros(0, np.uint32)
    assert group(("a", 1.0, none), ("b", 1.0, none), ("a", 1.0, none)) == [[0, 2]]


def test_copies_with_a_tenth_of_the_bits_wrong_are_nearly_always_found():
    clips = []
    for seed in range(100):
        clips += [(f"{seed}a", 5.0, words(seed)), (f"{seed}b", 5.0, words(seed, 0.1))]
    assert len(group(*clips)) >= 98


def test_partitions_find_the_same():
    clips = [(f"{n}", 5.0, words(n % 40, 0.08 * (n >= 40))) for n in range(60)]
    found = group(*clips)
    assert len(found) >= 15
    assert group(*clips, partition_clips=7) == found


def test_the_number_of_open_files_does_not_grow_with_the_clips(monkeypatch):
    clips = [(str(number), 4.0, words(number % 20, 0.05)) for number in range(60)]
    found = group(*clips)
    opened = []

    def open_file():
        partitions = opened[2:]  # the first two hold the fingerprints
        assert sum(not file.closed for file in partitions) < 3
        opened.append(tempfile.SpooledTemporaryFile())  # noqa: SIM115  closed by the code tested
        return opened[-1]

    monkeypatch.setattr(duplicates, "MAX_PARTITIONS", 3)
    monkeypatch.setattr(duplicates.tempfile, "TemporaryFile", open_file)
    assert group(*clips, partition_clips=2) == found
    assert len(found) == 20
    assert len(opened) > 5


def test_the_better_clip_ranks_first():
    spoken, labelled = Rank(False, 0, -8_000, -1, "z"), Rank(True, -2, -8_000, -1, "y")
    fine, plain = Rank(True, 0, -48_000, -1, "x"), Rank(True, 0, -8_000, -1, "a")
    assert sorted([plain, fine, labelled, spoken]) == [spoken, labelled, fine, plain]
