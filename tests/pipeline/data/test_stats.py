from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.data.stats import MIN_STD, LatentSums, latent_statistics

RNG = np.random.default_rng(0)


def sums_of(clips: list[np.ndarray], std: float = 0.0) -> dict:
    sums = LatentSums()
    for clip in clips:
        sums.add(clip, np.full_like(clip, np.log(max(std, 1e-9))))
    return json.loads(json.dumps(sums.to_json()))


def clips(count: int, mean: float, std: float) -> list[np.ndarray]:
    sizes = RNG.integers(3, 40, count)
    return [(mean + std * RNG.standard_normal((n, 4))).astype(np.float16) for n in sizes]


def test_one_modality_has_the_plain_mean_and_deviation():
    some = clips(20, 3.0, 2.0)
    found = latent_statistics([{"speech": sums_of(some)}])
    whole = np.concatenate(some).astype(np.float64)
    np.testing.assert_allclose(found["mean"], whole.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found["std"], whole.std(axis=0), rtol=1e-6)
    assert found["frames"] == {"speech": len(whole)}


def test_splitting_into_units_does_not_change_the_result():
    some = clips(30, 1.0, 1.0)
    whole = latent_statistics([{"music": sums_of(some)}])
    parts = latent_statistics([{"music": sums_of(some[i::7])} for i in range(7)])
    # Sums of fp16 values fit float64 but for the last bits.
    np.testing.assert_allclose(parts["mean"], whole["mean"], rtol=1e-12)
    np.testing.assert_allclose(parts["std"], whole["std"], rtol=1e-12)


def test_order_of_units_never_matters():
    units = [{"music": sums_of([clip])} for clip in clips(30, 1e3, 1e-2)]
    assert latent_statistics(units) == latent_statistics(units[::-1])


def test_modalities_weigh_the_same_however_many_frames_they_have():
    one = np.zeros((1000, 2), np.float16)
    other = np.full((10, 2), 2.0, np.float16)
    found = latent_statistics([{"speech": sums_of([one]), "music": sums_of([other])}])
    assert found["mean"] == pytest.approx([1.0, 1.0])
    assert found["std"] == pytest.approx([1.0, 1.0])


def test_posterior_deviation_counts():
    zero = np.zeros((50, 2), np.float16)
    found = latent_statistics([{"sound": sums_of([zero], std=0.5)}])
    assert found["std"] == pytest.approx([0.5, 0.5], rel=1e-3)  # log_std is stored in 16 bit


def test_dead_dimension_is_floored_and_counted():
    still = np.ones((50, 2), np.float16)
    found = latent_statistics([{"sound": sums_of([still])}])
    assert found["std"] == [MIN_STD, MIN_STD]
    assert found["num_dead"] == 2


def test_no_frames_are_an_error():
    with pytest.raises(ValueError, match="no latents"):
        latent_statistics([{}, {"sound": LatentSums().to_json()}])
