from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.signal
import soundfile

from pipeline.clip_tables import ClipTables, part_name
from pipeline.data.ingest import IngestSettings, ingest
from pipeline.data.screening.excerpts import PHASES, DenseWorker, ExcerptIndex
from pipeline.data.screening.fingerprints import Fingerprinter, stride_for, stride_of
from pipeline.data.units.stage import Resources, Unit
from pipeline.storage import Folder, table_bytes

RATE = 16_000


def recording(seed: int, duration_s: float) -> np.ndarray:
    """Noise through filters that change every quarter of a second, as sounds of the world do."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(round(duration_s * 4)):
        low = rng.uniform(200, 1_500)
        filters = scipy.signal.butter(2, [low, low * rng.uniform(1.5, 3)], "band", fs=RATE)
        pieces.append(scipy.signal.lfilter(*filters, rng.normal(size=RATE // 4)))
    wave = np.concatenate(pieces)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def words(wave: np.ndarray, phases: int = 1) -> np.ndarray:
    fingerprinter = Fingerprinter(RATE, phases)
    for start in range(0, len(wave), 10_000):
        fingerprinter.add(wave[None, start : start + 10_000])
    return fingerprinter.result()


def test_dense_words_hold_the_ordinary_ones():
    wave = recording(0, 6)
    ordinary, dense = words(wave), words(wave, PHASES)
    same = dense[::PHASES][: len(ordinary)] == ordinary
    assert same.mean() > 0.99


@pytest.mark.parametrize("duration_s", [3.0, 8.3, 17.0, 40.0, 130.0])
def test_the_stride_of_a_fingerprint_follows_from_its_length(duration_s):
    num_words = (round(duration_s * 8_000) - 3_072) // 512
    stride = stride_of(num_words)
    assert stride_for(duration_s, len(range(0, num_words, stride))) == stride


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (slice(0, 30), slice(11.013, 21.013)),
        (slice(11.013, 21.013), slice(0, 30)),
        (slice(0, 20.005), slice(8, 30)),
        (slice(4.031, 9.031), slice(0, 30)),
    ],
    ids=["held in ours", "ours in it", "overlap", "short"],
)
def test_a_part_of_an_evaluation_clip_is_found_at_any_offset(ours, theirs):
    whole = recording(1, 30)
    part, held = (whole[round(s.start * RATE) : round(s.stop * RATE)] for s in (ours, theirs))
    others = [(f"other {seed}", words(recording(seed, 20), PHASES)) for seed in (2, 3)]
    index = ExcerptIndex([*others, ("bench: 1", words(held, PHASES))], 0.2)
    assert index.find(words(part), len(part) / RATE) == "bench: 1"
    quieter = (0.3 * part + np.random.default_rng(9).normal(size=len(part)) * 1e-3).astype("f4")
    assert index.find(words(quieter), len(part) / RATE) == "bench: 1"


def test_other_recordings_share_no_part():
    held = [(str(seed), words(recording(seed, 15), PHASES)) for seed in range(10)]
    index = ExcerptIndex(held, 0.2)
    found = {index.find(words(recording(100 + seed, 15)), 15.0) for seed in range(30)}
    assert found == {""}


def test_an_empty_index_finds_no_excerpt():
    assert ExcerptIndex([], 0.2).find(words(recording(0, 5)), 5.0) == ""


def test_a_clip_that_cannot_be_read_is_a_reject(tmp_path):
    soundfile.write(tmp_path / "a.wav", recording(0, 3), RATE)
    rows = [
        {"clip_id": f"c/{name}", "corpus": "c", "uri": str(tmp_path / f"{name}.wav")}
        | {"start_s": None, "end_s": None}
        for name in "ab"
    ]
    folder = Folder.at(tmp_path / "clips")
    folder.write_bytes(part_name("x"), table_bytes(pa.Table.from_pylist(rows)))
    done = DenseWorker(ClipTables(folder)).process(Unit("x", "", {"part": "x"}))
    assert [row.reason for row in done.rejects] == ["missing_audio"]
    assert (done.read, done.written) == (2, 1)


def test_ingest_rejects_what_holds_a_part_of_an_evaluation_set(tmp_path):
    whole = recording(5, 20)
    for name, wave in (("track", whole), ("other", recording(6, 20))):
        (tmp_path / "in/sound").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"in/sound/{name}.wav", wave, RATE)
    (tmp_path / "bench").mkdir()
    soundfile.write(tmp_path / "bench/excerpt.flac", whole[5 * RATE + 77 : 15 * RATE], RATE)
    settings = IngestSettings(
        inputs=(str(tmp_path / "in"),),
        evaluation_sets=({"path": str(tmp_path / "bench")},),
        resources=Resources(workers=0),
    )
    card = ingest(settings, Folder.at(tmp_path / "clips"))
    assert card["rejected_by_reason"] == {"evaluation_leak": 1}
    assert card["written"] == 1
