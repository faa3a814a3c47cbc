from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.codec.protocol import Posterior
from model.codec.registry import codec_digest, load_codec
from pipeline.acoustics.speaker import SPEAKER_DIM
from pipeline.data import encode as module
from pipeline.data.encode import (
    EncodeResources,
    EncodeSettings,
    EncodeWorker,
    encode,
    silence_frame,
)
from pipeline.data.schema import ClipRow
from pipeline.data.shards import read_npy
from pipeline.data.units.stage import Unit
from pipeline.errors import IncompleteError, TooManyRejectsError
from pipeline.storage import Folder, read_tables
from tests.factories.clips import RATE, noise, small_corpus, tone, write_clips, write_codec
from tests.factories.speakers import save_x_vector
from tests.factories.stage import snapshot

HERE = EncodeSettings(resources=EncodeResources(workers=0))


def rows_of(folder: Folder, part: str = "parts") -> list[dict]:
    names = [f"{part}/{name}" for name in folder.child(part).files(".parquet")]
    return read_tables(folder, names).to_pylist()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("encode")
    clips = write_clips(root / "clips", small_corpus())
    codec = write_codec(root / "codec")
    encode(clips, Folder.at(root / "latents"), HERE, codec)
    return root


def test_frames_follow_from_samples_and_offsets_from_the_tar(corpus):
    latents, codec = Folder.at(corpus / "latents"), load_codec(corpus / "codec")
    rows = rows_of(latents)
    assert len(rows) == 10
    for row in rows:
        assert row["num_frames"] == codec.timebase.num_frames(row["num_samples"])
        for name in ("mean", "log_std"):
            payload = latents.read_range(
                f"shards/{row['shard']}.tar", row[f"{name}_offset"], row[f"{name}_size"]
            )
            array = read_npy(payload, name)
            assert array.dtype == np.float16
            assert array.shape == (row["num_frames"], codec.latent_dim)


def test_latents_are_those_of_the_clip_encoded_alone(corpus):
    import soundfile

    latents, codec = Folder.at(corpus / "latents"), load_codec(corpus / "codec")
    uris = {row["clip_id"]: row["uri"] for row in rows_of(Folder.at(corpus / "clips"))}
    for row in rows_of(latents):
        wave, _ = soundfile.read(uris[row["clip_id"]], dtype="float32")
        with torch.inference_mode():
            alone = codec.encode(torch.from_numpy(wave)[None, None]).mean[0].numpy()
        stored = read_npy(
            latents.read_range(f"shards/{row['shard']}.tar", row["mean_offset"], row["mean_size"]),
            "mean",
        )
        # Half precision keeps eleven bits; batching changes the last bits of float32.
        np.testing.assert_allclose(stored, alone, rtol=2e-3, atol=2e-3)


def test_speech_alone_has_speaker_embeddings_and_all_have_attributes(corpus):
    for row in rows_of(Folder.at(corpus / "latents")):
        is_speech = row["clip_id"].startswith("talk/")
        assert (row["speaker_embedding"] is not None) == is_speech
        if is_speech:
            assert len(row["speaker_embedding"]) == SPEAKER_DIM
        assert "level_dbfs" in json.loads(row["attributes"])


def test_a_published_speaker_encoder_is_used_by_its_weights_not_its_path(corpus, tmp_path):
    pytest.importorskip("transformers")
    save_x_vector(tmp_path / "a", "WavLM")
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    clips, codec, out = Folder.at(corpus / "clips"), str(corpus / "codec"), tmp_path / "latents"
    for folder in ("a", "moved"):
        settings = HERE.model_copy(update={"speaker_encoder": str(tmp_path / folder)})
        card = encode(clips, Folder.at(out), settings, codec)
        assert card["speaker"]["encoder"].startswith("wavlm-")
        assert card["speaker"]["speaker_dim"] == 24
        stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
        if folder == "a":
            before = stamps
    assert stamps == before
    widths = {len(row["speaker_embedding"] or []) for row in rows_of(Folder.at(out))}
    assert widths == {0, 24}


def test_card_names_codec_and_silence(corpus):
    card = Folder.at(corpus / "latents").card()
    codec = load_codec(corpus / "codec")
    assert card["codec"]["digest"] == codec_digest(corpus / "codec")
    assert card["codec"]["hop_length"] == codec.timebase.hop_length
    silence = np.frombuffer(base64.b64decode(card["silence"]), np.float16)
    np.testing.assert_array_equal(silence, silence_frame(codec))
    assert silence.shape == (codec.latent_dim,)
    assert card["hours"]["by_modality"].keys() == {"speech", "sound", "music"}


def test_card_tells_how_the_latents_are_distributed(corpus):
    card = Folder.at(corpus / "latents").card()
    found = card["latent_distribution"]
    num_frames = [min(row["num_frames"], 32) for row in rows_of(Folder.at(corpus / "latents"))]
    assert found["frames"] == sum(num_frames)
    assert found["std"]["min"] > 0
    assert found["marginal_distance"]["max"] > 0
    assert card["codec"]["delay_samples"] == load_codec(corpus / "codec").delay_samples


def test_second_run_writes_the_same_bytes_elsewhere_and_nothing_here(corpus, tmp_path, monkeypatch):
    clips, codec = Folder.at(corpus / "clips"), str(corpus / "codec")
    encode(clips, Folder.at(tmp_path / "again"), HERE, codec)
    assert snapshot(tmp_path / "again") == snapshot(corpus / "latents")
    monkeypatch.setattr(EncodeWorker, "process", None)  # would raise if anything were to do
    encode(clips, Folder.at(tmp_path / "again"), HERE, codec)


def test_new_captions_and_transcripts_encode_nothing_again(corpus, tmp_path, monkeypatch):
    encode(Folder.at(corpus / "clips"), Folder.at(tmp_path / "out"), HERE, str(corpus / "codec"))
    rows = [
        (replace(row, uri=_uri(row, corpus), captions=("New words.",), transcript="new"), wave)
        for row, wave in small_corpus()
    ]
    clips = write_clips(tmp_path / "clips", rows)
    monkeypatch.setattr(EncodeWorker, "process", None)
    card = encode(clips, Folder.at(tmp_path / "out"), HERE, str(corpus / "codec"))
    assert card["inputs"]["clips"] != Folder.at(corpus / "latents").card()["inputs"]["clips"]


def _uri(row: ClipRow, corpus: Path) -> str:
    return str(corpus / "audio" / f"{row.clip_id.replace('/', '-')}.wav")


def test_unreadable_clip_is_a_reject_and_the_rest_stay(corpus, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF but not really")
    rows = small_corpus()[:3]
    row = ClipRow(clip_id="bad/0", corpus="bad", uri=str(broken), modality="sound")
    rows.append((row, tone(1.0, 200)))
    clips = write_clips(tmp_path / "clips", rows)
    tolerant = HERE.model_copy(update={"max_reject_share": 0.5})
    card = encode(clips, Folder.at(tmp_path / "out"), tolerant, str(corpus / "codec"))
    assert (card["read"], card["written"], card["rejected"]) == (4, 3, 1)
    (reject,) = rows_of(Folder.at(tmp_path / "out"), "rejects")
    assert reject["clip_id"] == "bad/0"
    assert reject["reason"] == "unreadable"
    with pytest.raises(TooManyRejectsError):
        encode(clips, Folder.at(tmp_path / "strict"), HERE, str(corpus / "codec"))


class PickyCodec:
    """The tiny codec, but batches fail with a clip of exactly one second in them; log of sizes."""

    def __init__(self, codec) -> None:
        self._codec = codec
        self.batches: list[int] = []

    def __getattr__(self, name):
        return getattr(self._codec, name)

    def encode(self, waveform, num_samples=None) -> Posterior:
        self.batches.append(len(waveform))
        if RATE in num_samples.tolist():
            raise RuntimeError("cannot encode exactly one second")
        return self._codec.encode(waveform, num_samples)


def test_culprit_of_a_failed_batch_is_found_clip_by_clip(corpus, tmp_path, monkeypatch):
    rows = [
        (
            ClipRow(clip_id=f"n/{i}", corpus="n", uri="", modality="sound"),
            noise(1.0 if i == 2 else 0.8 + 0.01 * i, i),
        )
        for i in range(5)
    ]
    picky = PickyCodec(load_codec(corpus / "codec"))
    monkeypatch.setattr(module, "load_codec", lambda _folder: picky)
    clips = write_clips(tmp_path / "clips", rows, rows_per_part=8)
    worker = EncodeWorker(clips, "", HERE)
    output = worker.process(Unit("00000000", "d", {}))
    assert [reject.clip_id for reject in output.rejects] == ["n/2"]
    assert output.rejects[0].reason == "encoder_failed"
    assert "exactly one second" in output.rejects[0].detail
    assert (output.read, output.written) == (5, 4)
    assert picky.batches == [5, 1, 1, 1, 1, 1]


def test_clip_that_keeps_killing_is_rejected_and_a_death_in_the_codec_blames_none(corpus):
    entered = []

    def guard(item: str) -> bool:
        entered.append(item)
        return item != "talk/1"

    worker = EncodeWorker(Folder.at(corpus / "clips"), str(corpus / "codec"), HERE)
    output = worker.process(Unit("00000000", "d", {}, attempt=2, guard=guard))
    assert [(r.clip_id, r.reason) for r in output.rejects] == [("talk/1", "worker_died")]
    assert output.written == 3
    assert entered == ["talk/0", "talk/1", "talk/2", "talk/3", ""]


def test_second_attempt_gives_the_bytes_of_the_first(corpus):
    worker = EncodeWorker(Folder.at(corpus / "clips"), str(corpus / "codec"), HERE)
    first, second = (
        worker.process(Unit("00000001", "d", {}, attempt=attempt)) for attempt in (1, 2)
    )
    assert second.files == first.files


def test_latents_that_overflow_are_rejected(corpus, monkeypatch):
    class Huge(PickyCodec):
        def encode(self, waveform, num_samples=None) -> Posterior:
            posterior = self._codec.encode(waveform, num_samples)
            return Posterior(posterior.mean * 1e9, posterior.log_std)

    monkeypatch.setattr(module, "load_codec", lambda folder: Huge(load_codec(folder)))
    worker = EncodeWorker(Folder.at(corpus / "clips"), str(corpus / "codec"), HERE)
    output = worker.process(Unit("00000000", "d", {}))
    assert output.written == 0
    assert {reject.reason for reject in output.rejects} == {"encoder_failed"}


@pytest.mark.parametrize("changed", [{"window_s": 1.0, "max_batch_s": 1.0}, {"decode_threads": 3}])
def test_batching_and_threads_change_nothing_and_redo_nothing(corpus, tmp_path, changed):
    settings = EncodeSettings(resources=EncodeResources(workers=0, **changed))
    clips, out = Folder.at(corpus / "clips"), Folder.at(tmp_path / "out")
    encode(clips, out, settings, str(corpus / "codec"))
    ours, whole = (
        {row["clip_id"]: row for row in rows_of(Folder.at(root))}
        for root in (tmp_path / "out", corpus / "latents")
    )
    assert ours == whole
    assert out.card()["settings"] == Folder.at(corpus / "latents").card()["settings"]


def test_incomplete_clips_and_missing_codec_are_named(corpus, tmp_path):
    with pytest.raises(IncompleteError, match="does not exist"):
        encode(Folder.at(tmp_path / "no"), Folder.at(tmp_path / "o"), HERE, str(corpus / "codec"))
    with pytest.raises(FileNotFoundError, match="holds no codec"):
        encode(Folder.at(corpus / "clips"), Folder.at(tmp_path / "o"), HERE, str(tmp_path))
