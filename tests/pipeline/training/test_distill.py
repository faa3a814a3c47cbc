"""A student is trained by the ordinary loop, on the targets of the weights it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.distillation import student_times
from model.text import ByteTokenizer, null_ids
from pipeline.storage import Folder
from pipeline.training.init_from import open_parent, with_architecture
from pipeline.training.rundir import claim_directory
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import shards_for
from tests.factories.bundle import codec_facts, codec_latent_dim, write_bundle
from tests.factories.train_shards import SPEAKER_DIM, mixed_clips, write_shards
from tests.factories.training import small_settings, training, weights_of

STUDENT: dict[str, Any] = {
    "distill": {"num_flow_steps": 2, "guidance_scale": 2.0, "num_teacher_steps": 2},
    "sample": {"num_flow_steps": 2, "guidance_scale": 1.0},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A bundle, and shards of its codec."""
    bundle = write_bundle(tmp_path, speaker_dim=SPEAKER_DIM)
    card = {"codec": codec_facts(bundle / "codec")}
    write_shards(tmp_path / "shards", mixed_clips(), latent_dim=codec_latent_dim(), card=card)
    return tmp_path


def test_a_student_learns_its_teacher_and_resumes(alone, place):
    settings = small_settings(
        model={"overrides": {}, "init_from": str(place / "bundle")},
        feed={"condition_dropout": 0.0, "pack_length": 192},
        optim={"num_steps": 12, "learning_rate": 3e-3},
        **STUDENT,
    )
    parent = open_parent(str(place / "bundle"))
    settings = with_architecture(settings, parent)
    shards = shards_for(Folder.at(place / "shards"), parent)
    claim_directory(Folder.at(place / "run"), settings, shards, parent)
    worker = training(settings, place / "run", place / "shards")
    batch = worker.feed.batch(0)
    assert len(batch.null_batches) == len(batch.micro_batches)
    null = batch.null_batches[0]
    first = null.document[0] == 0
    assert null.token_ids[0, first][:2].tolist() == null_ids(ByteTokenizer())
    times = batch.micro_batches[0].flow_time.unique().tolist()
    assert times == pytest.approx([0.0, float(student_times(2)[1])])
    before = weights_of(worker)
    teacher = {n: p.clone() for n, p in worker._teacher._model.named_parameters()}
    summary = worker.run()
    assert summary["last"]["loss/flow"] < 0.9 * summary["first"]["loss/flow"]
    after = weights_of(worker)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    again = training(settings, place / "run", place / "shards")
    assert again.start == 12
    for name, value in again._teacher._model.named_parameters():
        assert torch.equal(value, teacher[name]), "the teacher is the parent, not the checkpoint"


def test_a_student_needs_a_teacher_and_the_steps_it_is_made_for():
    with pytest.raises(ValueError, match="distill needs a teacher"):
        TrainSettings.model_validate(STUDENT)
    with pytest.raises(ValueError, match=r"the student is made for \(2, 1\.0\)"):
        TrainSettings.model_validate({"model": {"init_from": "x"}, "distill": STUDENT["distill"]})
    validated = {"checkpoint": {"every": 5}, "validation": {"every": 5}}
    with pytest.raises(ValueError, match="which a student is not trained for"):
        TrainSettings.model_validate({"model": {"init_from": "x"}, **STUDENT, **validated})


def test_runs_without_a_student_keep_the_identity_they_had():
    settings = TrainSettings()
    assert settings.distill is None
    student = {"model": {"init_from": "x"}, **STUDENT}
    assert TrainSettings.model_validate(student).identity() != settings.identity()
