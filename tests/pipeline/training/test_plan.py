"""The numbers of a plan are worked out by hand here, for a model of two layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from model.config import ModelConfig
from model.cost import document_counts, sizes, training_flops
from model.text import ByteTokenizer
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.training.feed import Feed
from pipeline.training.hardware import Hardware
from pipeline.training.plan import TrainPlan, TypicalClip, plan_training, planned_config
from pipeline.training.plan_report import plan_report
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import model_config
from pipeline.training.shards import TrainShards
from tests.factories.train_shards import FakeClip, write_shards
from tests.factories.training import SMALL_MODEL, small_settings

CLIP = TypicalClip(duration_s=8, num_text=4, frame_rate=1.0, speech_share=0.25)
"""Two blocks of four frames: 4 + 2 * 8 = 20 positions with one noisy copy."""
GPUS = Hardware(num_gpus=2, memory_bytes=1e6, peak_flops=1e9, gpus_per_node=1, price_per_hour=3.0)


def _settings(**changes: Any) -> TrainSettings:
    feed = {"documents_per_step": 8, "pack_length": 64}
    return small_settings(**{"feed": feed, "engine": {"precision": "bf16"}, **changes})


def _config() -> ModelConfig:
    return planned_config(_settings().model, latent_dim=6)


def _plan(settings: TrainSettings | None = None, **changes: Any) -> TrainPlan:
    hardware = dataclasses.replace(GPUS, **changes)
    return plan_training(settings or _settings(), _config(), hardware, CLIP, 0.5)


def test_rows_and_positions_of_a_step() -> None:
    plan = _plan()
    assert plan.document.num_positions == 20
    assert plan.documents_per_row == 3, "64 // 20"
    assert plan.micro_batches == 2, "8 documents are 3 rows, on 2 GPUs with one row at a time"
    assert plan.positions_per_step == 160
    assert plan.useful_share == 160 / (2 * 2 * 64)
    assert plan.audio_s_per_step == 64
    assert not plan.document.is_cropped


def test_time_and_price_follow_from_work_peak_and_utilisation() -> None:
    plan, config = _plan(), _config()
    work = [
        training_flops(config, document_counts(config, 4, 8, 1, uses_expert=is_speech))
        for is_speech in (False, True)
    ]
    flops = 6 * work[0] + 2 * work[1]
    assert plan.flops_per_step == pytest.approx(flops), "a quarter of 8 documents is speech"
    assert plan.step_s == pytest.approx(plan.flops_per_step / (0.5 * 2 * 1e9))
    assert plan.price == pytest.approx(2 * 6 * plan.step_s / 3600 * 3.0)
    assert _plan(price_per_hour=None).price is None


def test_memory_of_states_and_activations() -> None:
    count = sizes(_config()).total
    plan = _plan()
    found = {(o.zero_stage, o.recomputes_layers): o for o in plan.options}
    # 2 bytes of weights, 2 of gradients and 16 of states per parameter, halved as the stage says.
    states = {stage: found[stage, False].state_bytes / count for stage in (1, 2, 3)}
    assert states == pytest.approx({1: 2 + 2 + 8, 2: 2 + 1 + 8, 3: 1 + 1 + 8})
    # A layer keeps 6 * 16 + 4 * 16 + 4 * 8 + 4 * 24 = 288 values of a position, its expert of inner
    # width 6 another 16 + 4 * 6 = 40; final norm and stop head 6 * 16, the head 16 + 9 * 16 of each
    # of the 3 * 8 noisy frames of a row.
    outside = 64 * 96 + 24 * 160
    assert found[2, False].activation_bytes == 2 * (2 * 64 * 328 + outside) == 103_936
    assert found[2, True].activation_bytes == 2 * (2 * 64 * 16 + 64 * 328 + outside) == 66_048
    assert plan.checkpoint_bytes == 16 * count
    assert plan.checkpoint_copy_bytes == 8 * count, "two workers copy half of the states each"


def test_with_adapters_gradients_states_and_checkpoints_are_theirs_alone() -> None:
    lora = {"rank": 2, "targets": ["q_proj"]}
    settings = _settings(model={"overrides": SMALL_MODEL, "init_from": "a", "lora": lora})
    plan, count = _plan(settings), sizes(_config()).total
    # Of rank 2: queries from 16 to 16 in two layers; the stop head from 16 to 16 and from 16 to 1.
    adapters = 2 * (2 * (16 + 16)) + 2 * (16 + 16) + 2 * (16 + 1)
    assert plan.num_trained == adapters
    states = {o.zero_stage: o.state_bytes for o in plan.options if not o.recomputes_layers}
    weights, theirs = 2 * (count + adapters), 18 * adapters
    assert states[1] == weights + 2 * adapters + 8 * adapters
    assert states[3] == (weights + theirs) / 2
    assert plan.checkpoint_bytes == 16 * adapters
    assert plan.checkpoint_copy_bytes == 8 * adapters
    assert plan.step_s == _plan().step_s, "an upper bound, as the report says"
    said = plan_report(plan)
    assert "adapters of rank 2, 0.0 M, are trained" in said
    assert "it is at most that" in said


def test_what_fits_and_what_is_suggested() -> None:
    count = sizes(_config()).total
    # 10 % are reserved: two rows fit beside the states of stage 2, but not three.
    plan = _plan(memory_bytes=(11 * count + 2.5 * 103_936) / 0.9)
    assert (plan.chosen.zero_stage, plan.chosen.largest_micro_batch) == (2, 2)
    assert plan.chosen.fits
    assert plan.suggested is not None
    assert (plan.suggested.zero_stage, plan.suggested.recomputes_layers) == (1, False)
    # With room for 1 byte less than stage 3 needs, layers must be recomputed.
    plan = _plan(memory_bytes=(10 * count + 103_936 - 1) / 0.9)
    assert not plan.chosen.fits
    assert plan.suggested is not None
    assert plan.suggested.recomputes_layers
    plan = _plan(memory_bytes=10.0 * count)
    assert plan.suggested is None
    assert {option.largest_micro_batch for option in plan.options} == {0}
    said = plan_report(plan)
    assert "Nothing fits" in said


def test_a_report_names_nodes_disk_and_assumptions() -> None:
    said = plan_report(_plan())
    assert "2 with 1 GPUs each" in said
    assert "for the 3 that are on disk at once" in said, "two are kept"
    assert "host memory  0.0 GB per node" in said
    assert "One takes 20 positions with 1 noisy copy; 3 fit a row" in said
    assert "at 3 per GPU hour" in said


def test_clips_longer_than_a_row_are_cropped_and_that_is_said() -> None:
    clip = dataclasses.replace(CLIP, duration_s=100)
    plan = plan_training(_settings(), _config(), GPUS, clip, 0.5)
    assert plan.document.is_cropped
    assert plan.document.num_positions == 4 + 7 * 8, "(64 - 4) // 8 blocks fit"
    assert plan.audio_s_per_step == 8 * 28
    assert "cropped to 28.0 s" in plan_report(plan)


def test_equal_clips_are_packed_as_the_feed_packs_them(tmp_path) -> None:
    clips = [FakeClip(name=f"clip-{n}", num_frames=8, descriptions=("a noise",)) for n in range(4)]
    write_shards(tmp_path, clips)
    shards = TrainShards(Folder.at(tmp_path))
    feed = {
        "documents_per_step": 13,
        "pack_length": 128,
        "condition_dropout": 0.0,
        "duration_share": 0.0,
    }
    settings = _settings(feed=feed)
    config = model_config(settings.model, shards, ByteTokenizer())
    rows = Feed(shards, settings.feed, config, ByteTokenizer(), 0).rows(0)
    lengths = {plan.length for row in rows for plan in row}
    texts = {len(plan.token_ids) for row in rows for plan in row}
    assert len(lengths) == len(texts) == 1
    clip = TypicalClip(8, texts.pop(), 1.0, 0.0)
    plan = plan_training(settings, config, dataclasses.replace(GPUS, num_gpus=1), clip, 0.5)
    assert plan.document.num_positions == lengths.pop()
    assert plan.micro_batches == len(rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": {"precision": "fp32"}}, "precision is fp32"),
        ({"feed": {"pack_length": 10}}, "pack_length 10 leaves no room for a block of 8"),
    ],
)
def test_a_recipe_that_cannot_be_planned_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _plan(_settings(**changes))


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(SettingsError, match="num_gpus is 0"):
        _plan(num_gpus=0)
    with pytest.raises(SettingsError, match="speech_share is 2"):
        dataclasses.replace(CLIP, speech_share=2)
    with pytest.raises(SettingsError, match=r"MFU is 1\.5"):
        plan_training(_settings(), _config(), GPUS, CLIP, 1.5)


def test_gpus_are_known_by_name_or_by_their_numbers() -> None:
    known = Hardware.of("h100", num_gpus=16)
    assert (known.memory_bytes, known.peak_flops, known.num_nodes) == (80e9, 989e12, 2)
    own = Hardware.of(None, num_gpus=1, memory_gb=10, peak_tflops=2)
    assert (own.memory_bytes, own.peak_flops) == (10e9, 2e12)
    with pytest.raises(SettingsError, match=r"'abacus' is not known; known are A100, .*--gpu-mem"):
        Hardware.of("abacus", num_gpus=1, memory_gb=10)
