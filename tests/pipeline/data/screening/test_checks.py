from __future__ import annotations

import numpy as np
import pytest

from pipeline.audio.files import resample
from pipeline.data.schema import ClipRow
from pipeline.data.screening.checks import (
    CheckSettings,
    Meter,
    UnfitError,
    check_declared,
    check_transcript,
)

RATE = 16_000


def tone(duration_s=0.5, level=0.3):
    time = np.arange(round(duration_s * RATE)) / RATE
    return (level * np.sin(2 * np.pi * 220 * time))[None].astype(np.float32)


def measure(waveform, block=1_000, **settings):
    meter = Meter(RATE, waveform.shape[0], CheckSettings(**settings))
    for start in range(0, waveform.shape[1], block):
        meter.add(waveform[:, start : start + block])
    return meter.result()


def reason_of(waveform, **settings):
    with pytest.raises(UnfitError) as caught:
        measure(waveform, **settings)
    return caught.value.reason


def with_value(value, at=100):
    waveform = tone()
    waveform[0, at] = value
    return waveform


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (with_value(np.nan), "non_finite"),
        (with_value(-np.inf), "non_finite"),
        (with_value(8.0), "out_of_range"),
        (tone() * 32_768, "out_of_range"),
        (tone(0.01), "too_short"),
        (tone()[:, :1], "too_short"),
        (tone(2.0), "too_long"),
        (np.zeros((1, 8_000), np.float32), "silent"),
        (np.full((1, 8_000), 1e-40, np.float32), "silent"),
        (tone(level=1 / 32_768), "silent"),
        (np.clip(tone() * 100, -1, 1), "clipped"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unfit_audio_is_refused_with_its_reason(waveform, reason):
    assert reason_of(waveform, max_duration_s=1.0) == reason


def test_the_time_of_the_first_bad_sample_is_reported():
    with pytest.raises(UnfitError, match=r"first at 0\.2500 s"):
        measure(with_value(np.nan, at=4_000))


def test_a_clip_that_is_too_long_is_refused_before_it_is_all_read():
    meter = Meter(RATE, 1, CheckSettings(max_duration_s=0.1))
    meter.add(tone(0.05))
    meter.add(tone(0.05))
    with pytest.raises(UnfitError, match=r"longer than the limit of 0\.1 s"):
        meter.add(tone(0.05))


@pytest.mark.parametrize(
    ("waveform", "note"),
    [
        (np.clip(tone() * 3.5, -1, 1), "clipped"),
        (with_value(1.5), "overshoot"),
        (tone() + 0.5, "dc_offset"),
        (np.concatenate([tone(), 0 * tone()]), "silent_channel"),
        (np.concatenate([tone(), -tone()]), "antiphase"),
    ],
    ids=["clipped", "overshoot", "dc", "one channel", "antiphase"],
)
def test_odd_audio_is_kept_with_a_note(waveform, note):
    measured = measure(waveform.astype(np.float32))
    assert [text.partition(":")[0] for text in measured.notes] == [note]


def test_clean_audio_has_no_notes_and_its_measures():
    measured = measure(np.concatenate([tone(), tone() * 0.5]))
    assert measured.notes == ()
    assert (measured.num_samples, measured.num_channels, measured.duration_s) == (8_000, 2, 0.5)


def test_the_fingerprint_depends_on_samples_not_on_blocks_or_depth():
    waveform = np.round(tone() * 32_768).astype(np.float32) / 32_768
    first = measure(waveform).fingerprint
    assert measure(waveform, block=37).fingerprint == first
    assert measure(waveform + 1e-7).fingerprint == first
    changed = waveform.copy()
    changed[0, 4_000] += 1 / 32_768
    assert measure(changed).fingerprint != first
    assert measure(np.concatenate([waveform, waveform])).fingerprint != first


def check_labels(clip, duration_s):
    settings = CheckSettings()
    return check_declared(clip, duration_s, settings) + check_transcript(clip, duration_s, settings)


def row(**fields):
    return ClipRow(clip_id="c/1", corpus="c", uri="x", modality="speech", **fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"transcript": "x" * 100_000}, "transcript_too_long"),
        ({"transcript": "hello", "declared_duration_s": 9.0}, "wrong_duration"),
    ],
)
def test_words_that_cannot_be_in_the_audio_are_refused(fields, reason):
    with pytest.raises(UnfitError) as caught:
        check_labels(row(**fields), 0.5)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("fields", "duration_s", "note"),
    [
        ({"declared_duration_s": 9_999.0}, 0.5, "wrong_duration"),
        ({"declared_duration_s": 1.0, "transcript": "hello you"}, 5.0, "wrong_duration"),
        ({"declared_duration_s": 0.6}, 0.5, None),
        ({"transcript": "seven"}, 0.2, None),
        ({"transcript": "a"}, 5.0, "few_words"),
    ],
)
def test_labels_that_only_look_odd_are_noted(fields, duration_s, note):
    notes = check_labels(row(**fields), duration_s)
    assert [text.partition(":")[0] for text in notes] == ([note] if note else [])


def test_much_upsampled_audio_is_refused_and_little_noted():
    noise = np.random.default_rng(0).standard_normal((1, 32_000)).astype(np.float32) * 0.1
    upsampled = np.round(resample(noise, 8_000, 16_000) * 32_768) / 32_768
    measured = measure(upsampled.astype(np.float32), note_bandwidth_share=0.6)
    assert [text.partition(":")[0] for text in measured.notes] == ["narrow_bandwidth"]
    assert reason_of(upsampled.astype(np.float32), min_bandwidth_share=0.6) == "narrow_bandwidth"


def test_a_transcript_in_another_language_is_refused_unless_that_is_off():
    clip = row(transcript="Съешь же ещё этих мягких булок", language="en")
    with pytest.raises(UnfitError, match="tagged 'en', but") as caught:
        check_labels(clip, 5.0)
    assert caught.value.reason == "language_mismatch"
    assert check_transcript(clip, 5.0, CheckSettings(checks_language=False)) == ()
