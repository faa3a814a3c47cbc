from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import IncompleteError
from pipeline.storage import Folder
from pipeline.training.codec.crops import ClipSpan, CropError, CropSource, read_spans
from tests.factories.codec import write_clips

MEMORY = {"kept": 10**9, "read": 0}


def source(spans: list[ClipSpan], **changes: object) -> CropSource:
    values = {
        "sample_rate": 4000,
        "num_channels": 1,
        "crop_samples": 1600,
        "weights": {},
        "memory_limit_bytes": MEMORY["kept"],
    }
    return CropSource(spans, **{**values, **changes})


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return write_clips(tmp_path_factory.mktemp("clips"))


def test_only_clips_of_the_split_are_read(clips: Folder) -> None:
    train, validation = read_spans(clips, "train"), read_spans(clips, "validation")
    assert (len(train), len(validation)) == (8, 1)
    assert not {span.uri for span in train} & {span.uri for span in validation}


def test_an_unfinished_directory_is_refused(tmp_path: Path) -> None:
    folder = write_clips(tmp_path)
    folder.reopen()
    with pytest.raises(IncompleteError, match="is not complete"):
        read_spans(folder, "train")


@pytest.mark.parametrize("memory", MEMORY)
def test_a_crop_depends_on_seed_step_and_index_alone(clips: Folder, memory: str) -> None:
    spans = read_spans(clips, "train")
    first, second = (source(spans, memory_limit_bytes=MEMORY[memory]) for _ in range(2))
    assert first.is_kept == (memory == "kept")
    later = [second.crop(1, step, 3) for step in (9, 4)]
    assert np.array_equal(first.crop(1, 4, 3), later[1])
    assert np.array_equal(first.crop(1, 9, 3), later[0])
    others = [first.crop(*key) for key in ((2, 4, 3), (1, 5, 3), (1, 4, 2))]
    assert not any(np.array_equal(other, later[1]) for other in others)


@pytest.mark.parametrize("memory", MEMORY)
def test_workers_together_hear_what_one_would(clips: Folder, memory: str) -> None:
    made = source(read_spans(clips, "train"), memory_limit_bytes=MEMORY[memory])
    whole = made.batch(0, 7, range(4))
    assert whole.shape == (4, 1, 1600)
    assert whole.dtype == np.float32
    for rank in range(2):
        assert np.array_equal(made.batch(0, 7, range(rank, 4, 2)), whole[rank::2])


def test_kept_and_read_crops_sound_the_same(clips: Folder) -> None:
    spans = read_spans(clips, "train")
    for span in (spans[3], spans[6], spans[7]):
        kept, read = (source([span], memory_limit_bytes=limit) for limit in MEMORY.values())
        first, second = kept.crop(0, 0, 0), read.crop(0, 0, 0)
        if span.sample_rate == 4000:
            # 16-bit rounding
            np.testing.assert_allclose(first, second, atol=1e-4)
        # a crop begins at a whole sample of another rate, so only the spectrum is the same
        pitches = [np.abs(np.fft.rfft(crop[0])).argmax() for crop in (first, second)]
        assert pitches[0] == pitches[1]


def test_modalities_are_heard_equally_or_by_weight(clips: Folder) -> None:
    spans = [ClipSpan(str(i), 0, 4000, 4000, "speech") for i in range(90)]
    spans += [ClipSpan("m", 0, 4000, 4000, "music"), ClipSpan("s", 0, 4000, 4000, "sound")]

    def heard(weights: dict[str, float]) -> Counter[str]:
        made = source(spans, weights=weights)
        chosen: list[int] = []
        made._cut = lambda index, _: chosen.append(index)  # type: ignore[method-assign]
        for index in range(600):
            made.crop(0, 0, index)
        return Counter(spans[index].modality for index in chosen)

    equal = heard({})
    assert all(150 < equal[name] < 250 for name in ("speech", "sound", "music"))
    weighted = heard({"speech": 4.0, "sound": 0.0})
    assert weighted["sound"] == 0
    assert 430 < weighted["speech"] < 530


def test_clips_are_drawn_as_numpy_draws_by_share() -> None:
    lengths = np.random.default_rng(3).integers(1, 40_000, 3000)
    names = ("music", "sound", "speech")
    spans = [ClipSpan(str(i), 0, int(n), 4000, names[i % 3]) for i, n in enumerate(lengths)]
    weights = {"music": 0.7, "sound": 0.3, "speech": 1.9}
    made = source(spans, weights=weights)
    drawn: list[tuple[int, float]] = []
    made._cut = lambda *cut: drawn.append(cut)  # type: ignore[method-assign, assignment]
    for index in range(300):
        made.crop(7, 2, index)

    shares = np.array([weights[name] for name in names])
    crops = np.maximum(lengths / 4000, 0.4)
    expected = []
    for index in range(300):
        random = np.random.default_rng([7, 2, index, 0])
        first = random.choice(3, p=shares / shares.sum())
        own = crops[first::3]
        expected.append((first + 3 * random.choice(1000, p=own / own.sum()), random.random()))
    assert drawn == expected


@pytest.mark.parametrize("memory", MEMORY)
def test_channels_are_mixed_or_copied(clips: Folder, memory: str) -> None:
    span = read_spans(clips, "train")[1]
    limit = MEMORY[memory]
    stereo = source([span], num_channels=2, memory_limit_bytes=limit).crop(0, 0, 0)
    mono = source([span], memory_limit_bytes=limit).crop(0, 0, 0)
    np.testing.assert_allclose(stereo.mean(axis=0), mono[0], atol=1e-4)
    single = read_spans(clips, "train")[0]
    copied = source([single], num_channels=2, memory_limit_bytes=limit).crop(0, 0, 0)
    assert np.array_equal(copied[0], copied[1])


def test_a_short_clip_is_followed_by_silence(clips: Folder) -> None:
    span = read_spans(clips, "train")[0]
    length = span.num_samples * 4000 // span.sample_rate
    crop = source([span]).crop(0, 0, 0)
    assert crop[:, :length].any()
    assert not crop[:, length:].any()


def test_spans_are_cut_out_of_their_file(clips: Folder) -> None:
    whole = read_spans(clips, "train")[6]
    part = ClipSpan(whole.uri, 1000, 1600, whole.sample_rate, whole.modality)
    assert whole.sample_rate == 4000
    for limit in MEMORY.values():
        alone = source([part], memory_limit_bytes=limit).crop(0, 0, 0)
        all_of_it = source([whole], crop_samples=whole.num_samples).crop(0, 0, 0)
        np.testing.assert_allclose(alone, all_of_it[:, 1000:2600], atol=1e-4)


def test_undecodable_clips_are_replaced_and_counted(tmp_path: Path) -> None:
    spans = read_spans(write_clips(tmp_path, broken=3), "train")
    made = source(spans)
    crops = made.batch(0, 0, range(200))
    assert made.num_unreadable == 3
    assert crops.reshape(200, -1).any(axis=1).all()
    assert np.array_equal(source(spans).batch(0, 0, range(200)), crops)


def test_nothing_but_undecodable_clips_ends_with_the_reason(tmp_path: Path) -> None:
    spans = read_spans(write_clips(tmp_path, broken=2), "train")[-2:]
    with pytest.raises(CropError, match="could not be decoded"):
        source(spans).crop(0, 0, 0)


def test_the_cost_of_a_draw_does_not_grow_with_the_clips() -> None:
    made = source([ClipSpan(str(i), 0, 4000, 4000, "speech") for i in range(5000)])
    made._cut = lambda *_: np.zeros((1, 1600), np.float32)  # type: ignore[method-assign]
    made.crop(0, 0, 0)
    tracemalloc.start()
    made.crop(0, 0, 1)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20_000, "a distribution over 5,000 clips takes twice that"


@pytest.mark.parametrize("weights", [{}, {"speech": 0.0}], ids=["no clips", "no weight"])
def test_no_clips_to_choose_from_is_an_error(weights: dict[str, float]) -> None:
    spans = [ClipSpan("a", 0, 10, 10, "speech")] if weights else []
    with pytest.raises(CropError, match="no clips to crop"):
        source(spans, weights=weights)
