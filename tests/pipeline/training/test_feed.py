from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from model.batch import TrainingBatch
from model.config import ModelConfig
from model.sequence import CLEAN, PREFIX, AudioPositions
from model.tempo import POSITIONS_PER_BEAT
from model.text import ByteTokenizer
from pipeline.errors import IncompleteError
from pipeline.storage import Folder
from pipeline.training.alignment import Alignment, align
from pipeline.training.feed import Feed, StepBatch, pack_rows
from pipeline.training.settings import FeedSettings
from pipeline.training.shards import TrainShards
from tests.factories.train_shards import (
    LATENT_DIM,
    SPEAKER_DIM,
    FakeClip,
    clip_mean,
    mixed_clips,
    one_layer_config,
    write_shards,
)

TOKENIZER = ByteTokenizer()
CONFIG = one_layer_config(speaker_dim=SPEAKER_DIM, speaker_id=TOKENIZER.speaker_id)
PLAIN = {
    "condition_dropout": 0.0,
    "speaker_dropout": 0.0,
    "duration_share": 0.0,
    "speech_duration_share": 0.0,
    "history_noise_share": 0.0,
}


def _feed(path: Path, clips: list[FakeClip], rank: int = 0, world_size: int = 1, **values) -> Feed:
    folder = Folder.at(path)
    if not folder.is_complete:
        write_shards(path, clips)
    settings = FeedSettings.model_validate(
        {"documents_per_step": 8, "pack_length": 192, **PLAIN, **values}
    )
    return Feed(
        TrainShards(folder), settings, CONFIG, TOKENIZER, 7, rank=rank, world_size=world_size
    )


_COMPARED = ("token_ids", "latent_inputs", "flow_time", "velocity_target", "stop_mask")


def _is_routed(micro: TrainingBatch) -> torch.Tensor:
    """Which positions route to the expert, `batch seq`."""
    routed = torch.zeros(micro.document.numel(), dtype=torch.bool)
    routed[micro.expert_tokens] = True
    return routed.view_as(micro.document)


def _documents(batch: StepBatch) -> list[tuple[bytes, ...]]:
    """Every document of a worker's part that enters a loss, as comparable bytes."""
    found = []
    for micro in batch.micro_batches:
        for row in range(len(micro.document)):
            for number in micro.document[row].unique().tolist():
                here = micro.document[row] == number
                if number >= 0 and micro.flow_mask[row, here].any():
                    own = [getattr(micro, name)[row, here] for name in _COMPARED]
                    own.append(_is_routed(micro)[row, here])
                    own.append(micro.speaker[row, number])
                    found.append(tuple(tensor.numpy().tobytes() for tensor in own))
    return found


def _only(batch: StepBatch):
    """The one document of a batch, as its fields."""
    (micro,) = batch.micro_batches
    here = micro.document[0] == 0
    apart = ("speaker", "noisy_frames", "predictors", "expert_tokens", "backbone_length")
    fields = {
        item.name: getattr(micro, item.name)[0][here]
        for item in dataclasses.fields(micro)
        if item.name not in apart
    }
    return fields | {"speaker": micro.speaker[0, 0]}


NOISY_SETTINGS = {
    "condition_dropout": 0.3,
    "speaker_dropout": 0.3,
    "duration_share": 0.5,
    "speech_duration_share": 0.5,
    "history_noise_share": 0.5,
}


def test_the_documents_of_a_step_do_not_depend_on_the_number_of_workers(tmp_path):
    clips = mixed_clips(14)
    for step in (0, 3):
        contents = []
        for world_size in (1, 2, 3):
            parts = [
                _feed(tmp_path, clips, rank, world_size, **NOISY_SETTINGS).batch(step)
                for rank in range(world_size)
            ]
            assert len({len(part.micro_batches) for part in parts}) == 1, "or ranks would hang"
            assert sum(part.num_documents for part in parts) == 8
            contents.append(sorted(doc for part in parts for doc in _documents(part)))
        assert len(contents[0]) == 8
        assert contents[0] == contents[1] == contents[2]


def test_micro_batches_of_several_rows_hold_the_same_documents(tmp_path):
    clips = mixed_clips(14)
    single = _documents(_feed(tmp_path, clips, rows_per_micro_batch=1).batch(1))
    feed = _feed(tmp_path, clips, rows_per_micro_batch=3)
    triple = feed.batch(1)
    assert {len(micro.document) for micro in triple.micro_batches} == {3}
    assert sorted(single) == sorted(_documents(triple))


def test_a_resumed_feed_continues_as_if_it_never_stopped(tmp_path):
    clips = mixed_clips(14)
    whole = list(_feed(tmp_path, clips, **NOISY_SETTINGS).batches(0, 5))
    resumed = list(_feed(tmp_path, clips, **NOISY_SETTINGS).batches(3, 5))
    assert [batch.step for batch in whole] == [0, 1, 2, 3, 4]
    assert [_documents(batch) for batch in whole[3:]] == [_documents(b) for b in resumed]
    assert _documents(whole[0]) != _documents(whole[1])


def test_a_clip_visited_again_is_drawn_anew(tmp_path):
    feed = _feed(tmp_path, [FakeClip(name="a")], documents_per_step=1)
    first, again = _only(feed.batch(0)), _only(feed.batch(1))
    assert not torch.equal(first["velocity_target"], again["velocity_target"])
    clean = first["segment"] == CLEAN
    torch.testing.assert_close(
        first["latent_inputs"][clean], again["latent_inputs"][clean], atol=0.3, rtol=0
    )  # both lie within six posterior standard deviations, exp(-3) / 2, of the mean


def test_latents_are_normalised_and_speech_ends_in_silence(tmp_path):
    clips = [FakeClip(name="a", num_frames=10, modality="speech")]
    feed = _feed(tmp_path, clips, documents_per_step=1)
    fields = _only(feed.batch(0))
    clean = fields["segment"] == CLEAN
    latents = fields["latent_inputs"][clean].numpy()
    assert latents.shape == (12, LATENT_DIM)
    expected = (clip_mean("a", 10).astype(np.float32) - 0.5) / 2.0
    np.testing.assert_allclose(latents[:10], expected, atol=6 * np.exp(-3) / 2)
    assert not np.allclose(latents[:10], expected, atol=1e-4), "the posterior is sampled"
    np.testing.assert_allclose(latents[10:], -1.0)
    assert fields["stop_target"][clean].tolist() == [0.0] * 9 + [1.0] * 3
    assert fields["stop_mask"][clean].all()
    assert fields["flow_mask"].sum() == 12, "silence is in the flow loss"


@pytest.mark.parametrize(("num_frames", "kept"), [(11, 8), (8, 8), (3, 3)])
def test_sounds_end_with_a_whole_block(tmp_path, num_frames, kept):
    clips = [FakeClip(name="a", num_frames=num_frames)]
    batch = _feed(tmp_path, clips, documents_per_step=1).batch(0)
    fields = _only(batch)
    latents = fields["latent_inputs"][fields["segment"] == CLEAN].numpy()
    expected = (clip_mean("a", num_frames).astype(np.float32) - 0.5) / 2.0
    np.testing.assert_allclose(latents[:kept], expected[:kept], atol=6 * np.exp(-3) / 2)
    np.testing.assert_allclose(latents[kept:], -1.0, err_msg="less than a block is filled up")
    assert bool(fields["stop_mask"].any()) == (kept == num_frames), "only an end is an end"
    assert batch.num_cropped == 0


def test_history_noise_stays_out_of_the_targets(tmp_path):
    clips = [FakeClip(name="a", num_frames=8)]
    plain = _only(_feed(tmp_path, clips, documents_per_step=1).batch(0))
    noised = _only(_feed(tmp_path, clips, documents_per_step=1, history_noise_share=1.0).batch(0))
    clean = plain["segment"] == CLEAN
    difference = (noised["latent_inputs"] - plain["latent_inputs"])[clean]
    assert 0 < difference.std() < 0.2
    assert torch.equal(noised["velocity_target"], plain["velocity_target"])
    assert torch.equal(noised["latent_inputs"][~clean], plain["latent_inputs"][~clean])


def test_long_clips_are_cropped_on_a_block_edge_and_counted(tmp_path):
    clips = [FakeClip(name="long", num_frames=101)]
    feed = _feed(tmp_path, clips, documents_per_step=1, pack_length=120)
    starts = set()
    for step in range(12):
        batch = feed.batch(step)
        fields = _only(batch)
        clean = fields["segment"] == CLEAN
        num_frames = int(clean.sum())
        assert batch.num_cropped == 1
        assert num_frames % 4 == 0
        assert batch.num_positions <= 120
        assert num_frames >= 48, "the row is filled as far as blocks allow"
        mean = (clip_mean("long", 101).astype(np.float32) - 0.5) / 2
        distances = [
            np.abs(fields["latent_inputs"][clean].numpy()[:4] - mean[begin : begin + 4]).max()
            for begin in range(0, 98, 4)
        ]
        start = 4 * int(np.argmin(distances))
        starts.add(start)
        ends_clip = start + num_frames >= 101
        assert bool(fields["stop_mask"].any()) == ends_clip, "only the end of a clip is an end"
    assert len(starts) > 3


def test_weights_of_a_language_change_what_is_drawn_on_every_number_of_workers(tmp_path):
    clips = [
        FakeClip(name=f"c{number}", modality="speech", transcript="x" if number < 2 else None)
        for number in range(8)
    ]
    weights = {"language_weights": {"none": 0.25}}
    feed = _feed(tmp_path, clips, **weights)
    drawn = [plan.row["language"] for step in range(9) for row in feed.rows(step) for plan in row]
    # 2 clips of weight 1 against 6 of a quarter: 4 to 3.
    assert abs(drawn.count("en") - 72 * 4 / 7) <= 8
    other = _feed(tmp_path, clips, rank=1, world_size=2, **weights)
    again = [plan.row["language"] for step in range(9) for row in other.rows(step) for plan in row]
    assert again == drawn


def test_a_clip_with_words_keeps_its_beginning(tmp_path):
    clips = [FakeClip(name="long", num_frames=101, modality="speech", transcript="a b c")]
    feed = _feed(tmp_path, clips, documents_per_step=1, pack_length=140)
    mean = (clip_mean("long", 101).astype(np.float32) - 0.5) / 2
    for step in range(3):
        fields = _only(feed.batch(step))
        latents = fields["latent_inputs"][fields["segment"] == CLEAN].numpy()
        np.testing.assert_allclose(latents, mean[: len(latents)], atol=6 * np.exp(-3) / 2)
        assert not fields["stop_mask"].any()


def _text(fields: dict[str, torch.Tensor]) -> str:
    return TOKENIZER.decode(fields["token_ids"][fields["segment"] == PREFIX].tolist())


def test_prompts_name_a_description_the_words_and_sometimes_the_duration(tmp_path):
    clips = [FakeClip(name="a", num_frames=50, descriptions=("one", "two"))]
    feed = _feed(tmp_path, clips, documents_per_step=1, duration_share=0.5)
    texts = {_text(_only(feed.batch(step))) for step in range(24)}
    assert texts == {"One.", "Two.", "One.\n(1.9 seconds)", "Two.\n(1.9 seconds)"}, "whole blocks"


def test_words_have_a_share_of_durations_of_their_own(tmp_path):
    words = [
        FakeClip(
            name="b", num_frames=50, modality="speech", transcript="Hé!", descriptions=("a man",)
        )
    ]
    without, named = (
        "A man.\n(language en)\nSays: Hé!",
        "A man.\n(language en, 2.0 seconds)\nSays: Hé!",
    )
    for share, expected in ((0.0, {without}), (0.5, {without, named}), (1.0, {named})):
        values = {"duration_share": 1.0 - share, "speech_duration_share": share}
        feed = _feed(tmp_path, words, documents_per_step=1, **values)
        assert {_text(_only(feed.batch(step))) for step in range(24)} == expected
    assert 0 < FeedSettings().speech_duration_share < FeedSettings().duration_share


def test_words_that_are_cut_off_name_no_duration(tmp_path):
    clips = [FakeClip(name="long", num_frames=101, modality="speech", transcript="a b c")]
    values = {"pack_length": 140, "speech_duration_share": 1.0}
    fields = _only(_feed(tmp_path, clips, documents_per_step=1, **values).batch(0))
    assert int((fields["segment"] == CLEAN).sum()) < 101
    assert "seconds" not in _text(fields)
    assert _text(fields).endswith("Says: a b c")


def test_a_cropped_clip_names_the_duration_of_the_crop(tmp_path):
    clips = [FakeClip(name="a", num_frames=200, descriptions=("one",))]
    feed = _feed(tmp_path, clips, documents_per_step=1, duration_share=1.0, pack_length=140)
    fields = _only(feed.batch(0))
    num_frames = int((fields["segment"] == CLEAN).sum())
    assert _text(fields) == f"One.\n({num_frames * 0.04:.1f} seconds)"


def test_the_voice_comes_from_another_clip_of_the_speaker(tmp_path):
    clips = [
        FakeClip(name=name, modality="speech", transcript=name, speaker=speaker)
        for name, speaker in (("a", "s"), ("b", "s"), ("c", "t"))
    ]
    feed = _feed(tmp_path, clips, documents_per_step=1)
    shards = TrainShards(Folder.at(tmp_path))
    voices = {key: shards.embeddings.of(number) for number, key in enumerate(shards.column("key"))}
    heard = {}
    for step in range(3):
        fields = _only(feed.batch(step))
        heard[_text(fields)[-1]] = fields["speaker"].numpy()
        assert int(fields["token_ids"][0]) == TOKENIZER.speaker_id
    np.testing.assert_array_equal(heard["a"], voices["b"])
    np.testing.assert_array_equal(heard["b"], voices["a"])
    np.testing.assert_array_equal(heard["c"], voices["c"])


def test_dropping_the_condition_leaves_the_null_prefix_and_no_voice(tmp_path):
    clips = [FakeClip(name="a", modality="speech", transcript="x", speaker="s")]
    fields = _only(_feed(tmp_path, clips, documents_per_step=1, condition_dropout=1.0).batch(0))
    prefix = fields["token_ids"][fields["segment"] == PREFIX].tolist()
    assert prefix == [TOKENIZER.null_id, TOKENIZER.audio_id]
    assert not fields["speaker"].any()
    fields = _only(_feed(tmp_path, clips, documents_per_step=1, speaker_dropout=1.0).batch(0))
    assert TOKENIZER.speaker_id not in fields["token_ids"].tolist()
    assert "Says: x" in _text(fields)


def test_the_expert_sees_speech_and_singing_only(tmp_path):
    clips = [
        FakeClip(name="a", modality="speech", transcript="x"),
        FakeClip(name="b", modality="music"),
        FakeClip(name="c", modality="music", is_singing=True, transcript="la"),
        FakeClip(name="d", modality="sound"),
    ]
    feed = _feed(tmp_path, clips, documents_per_step=1)
    routed = {}
    for step in range(12):
        plan = feed.rows(step)[0][0]
        batch = feed.batch(step)
        routed[plan.row["key"]] = bool(_is_routed(batch.micro_batches[0]).any())
    assert routed == {"a": True, "b": False, "c": True, "d": False}


def test_clips_without_room_are_left_out_and_none_left_is_an_error(tmp_path):
    clips = [FakeClip(name="a"), FakeClip(name="b", descriptions=("x" * 200,))]
    feed = _feed(tmp_path, clips, documents_per_step=4)
    assert feed.num_left_out == 1
    assert {plan.row["key"] for row in feed.rows(0) for plan in row} == {"a"}
    with pytest.raises(ValueError, match="no clips to train on"):
        _feed(tmp_path, clips, pack_length=16)


def test_other_splits_are_not_trained_on(tmp_path):
    clips = [FakeClip(name="a"), FakeClip(name="b", split="test")]
    feed = _feed(tmp_path, clips)
    assert {plan.row["key"] for row in feed.rows(0) for plan in row} == {"a"}


def test_rows_hold_every_document_once_and_never_too_much(tmp_path):
    feed = _feed(tmp_path, mixed_clips(30), documents_per_step=40)
    rows = feed.rows(2)
    plans = [plan for row in rows for plan in row]
    assert sorted(plan.position for plan in plans) == list(range(80, 120))
    assert all(sum(plan.length for plan in row) <= 192 for row in rows)
    assert sum(plan.length for plan in plans) > 0.8 * 192 * len(rows), "rows are well filled"
    assert pack_rows(plans[::-1], 192) == rows


def test_under_the_local_head_noisy_copies_take_no_room_in_a_row(tmp_path):
    write_shards(tmp_path, mixed_clips())
    settings = FeedSettings.model_validate(
        {"documents_per_step": 8, "pack_length": 192, "num_noisy_copies": 3, **PLAIN}
    )
    head = dataclasses.replace(CONFIG.head, kind="local", head_dim=8)
    shards = TrainShards(Folder.at(tmp_path))

    def step_of(config: ModelConfig) -> tuple[Feed, StepBatch]:
        feed = Feed(shards, settings, config, TOKENIZER, 7)
        return feed, feed.batch(0)

    _, thin = step_of(CONFIG)
    feed, local = step_of(dataclasses.replace(CONFIG, head=head))
    assert local.num_positions < 0.7 * thin.num_positions
    assert len(local.micro_batches) <= len(thin.micro_batches)
    lengths = [plan.length for row in feed.rows(0) for plan in row]
    assert sum(lengths) == local.num_positions
    for micro in local.micro_batches:
        assert micro.backbone_length == 192
        inside = micro.document[:, :192] >= 0
        frames = (micro.document[:, 192:] >= 0).sum()
        assert frames == micro.flow_mask.sum() == 3 * (inside & (micro.segment[:, :192] == 1)).sum()


def test_damage_found_in_the_background_is_raised_in_the_loop(tmp_path):
    write_shards(tmp_path, mixed_clips(6))
    shard = tmp_path / "shards" / "train-00000.tar"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    feed = _feed(tmp_path, [], documents_per_step=6)
    with pytest.raises(IncompleteError, match="run `audiocalm shard` again"):
        list(feed.batches(0, 2))


PACED = dataclasses.replace(CONFIG, paces_speech=True)


def test_speech_runs_along_its_words_as_they_are_aligned(tmp_path: Path) -> None:
    write_shards(tmp_path, mixed_clips(12))
    shards, run = Folder.at(tmp_path), Folder.at(tmp_path / "run")
    align(run, shards, TOKENIZER)
    alignment = Alignment(run, "train")
    settings = FeedSettings.model_validate(
        {"documents_per_step": 12, "pack_length": 192, "rows_per_micro_batch": 64, **PLAIN}
    )
    feed = Feed(TrainShards(shards), settings, PACED, TOKENIZER, 7, alignment=alignment)
    (batch,) = feed.batch(0).micro_batches
    found = 0
    for row in range(len(batch.document)):
        for number in range(int(batch.document[row].max()) + 1):
            here = batch.document[row] == number
            prefix = here & (batch.segment[row] == PREFIX)
            clean = batch.position[row][here & (batch.segment[row] == CLEAN)]
            if not batch.flow_mask[row][here].any():  # fills an empty row
                continue
            num_text, text = int(prefix.sum()), batch.token_ids[row][prefix].tolist()
            if batch.modality[row][prefix][0] != 0:
                assert clean[0] == num_text
                assert not batch.is_word[row][here].any()
                continue
            found += 1
            words = TOKENIZER.decode(text).split("Says: ")[1].encode()
            durations = batch.duration_target[row][prefix][-1 - len(words) : -1]
            assert batch.is_word[row][here].sum() == len(words)
            # The words take the whole clip, but for the silence that fills its last block.
            assert 0 <= len(clean) - float(durations.sum()) < PACED.frames_per_block + 1e-3
            positions = AudioPositions.along_words(num_text, durations.tolist())
            torch.testing.assert_close(clean, positions.of(torch.arange(len(clean))))
    assert found


def test_music_at_a_tempo_stands_in_beats_and_all_else_in_frames(tmp_path: Path) -> None:
    clips = [
        dataclasses.replace(clip, descriptions=(f"{clip.modality} at 60 BPM",))
        for clip in mixed_clips(12)
    ]
    write_shards(tmp_path, clips)
    settings = FeedSettings.model_validate(
        {"documents_per_step": 12, "pack_length": 192, "rows_per_micro_batch": 64, **PLAIN}
        | {"condition_dropout": 0.5}
    )
    shards = TrainShards(Folder.at(tmp_path))
    frame_rate = shards.codec["sample_rate"] / shards.codec["hop_length"]
    config = dataclasses.replace(CONFIG, paces_music=True)
    (batch,) = Feed(shards, settings, config, TOKENIZER, 7).batch(0).micro_batches
    found = set()
    for row in range(len(batch.document)):
        for number in range(int(batch.document[row].max()) + 1):
            here = batch.document[row] == number
            if not batch.flow_mask[row][here].any():  # fills an empty row
                continue
            prefix = batch.token_ids[row][here & (batch.segment[row] == PREFIX)]
            text = TOKENIZER.decode(prefix.tolist())
            is_paced = "60 BPM" in text and "Says" not in text
            clean = batch.position[row][here & (batch.segment[row] == CLEAN)]
            expected = POSITIONS_PER_BEAT / frame_rate if is_paced else 1.0
            torch.testing.assert_close(clean.diff(), torch.full((len(clean) - 1,), expected))
            found.add((is_paced, "Says" in text))
    assert found == {(True, False), (False, True), (False, False)}


def test_a_model_that_paces_speech_builds_no_batch_without_an_alignment(tmp_path: Path) -> None:
    write_shards(tmp_path, mixed_clips(12))
    settings = FeedSettings.model_validate({"documents_per_step": 2, "pack_length": 192, **PLAIN})
    feed = Feed(TrainShards(Folder.at(tmp_path)), settings, PACED, TOKENIZER, 7)
    assert feed.rows(0)
    with pytest.raises(ValueError, match="needs the alignment"):
        feed.batch(0)
