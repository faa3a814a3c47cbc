"""A student's targets are where the sampler's guided steps end."""

from __future__ import annotations

import pytest
import torch

from model.audiocalm import AudioCALM
from model.batch import Document, TrainingBatch, pack
from model.config import HeadConfig, ModelConfig
from model.distillation import student_times, with_teacher_targets
from model.inference import schedule
from model.inference.generation import GenerationRequest, SamplingOptions
from model.inference.sampler import Sampler
from tests.factories.model import (
    AUDIO_ID,
    LOCAL_HEAD,
    NULL_ID,
    random_document,
    random_model,
    tiny_config,
)

NULL_IDS = (NULL_ID, AUDIO_ID)
SEED = 5
NUM_BLOCKS = 3
GUIDANCE = 2.5


def document_of(config: ModelConfig, flow_time: float = 0.0) -> Document:
    """Speech whose last block starts from the noise that the sampler draws for it."""
    frames = config.frames_per_block
    noise = torch.randn(1, NUM_BLOCKS * frames, config.latent_dim)
    noise[0, -frames:] = torch.randn(
        frames, config.latent_dim, generator=torch.Generator().manual_seed(SEED)
    )
    times = torch.full((1, NUM_BLOCKS), flow_time)
    return random_document(
        config, 3, num_blocks=NUM_BLOCKS, modality="speech", noise=noise, flow_time=times
    )


def batches(document: Document, config: ModelConfig) -> tuple[TrainingBatch, TrainingBatch]:
    null = document.without_condition(NULL_IDS)
    return pack([[document]], config, 64), pack([[null]], config, 64)


def target_of(model: AudioCALM, document: Document, **changes: float | int) -> torch.Tensor:
    """Average velocity of the last block."""
    given: dict[str, float | int] = {
        "num_flow_steps": 1, "num_teacher_steps": 4, "guidance_scale": GUIDANCE, **changes
    }  # fmt: skip
    batch, null = batches(document, model.config)
    changed = with_teacher_targets(batch, null, model, **given)  # type: ignore[arg-type]
    return changed.velocity_target.flatten(0, 1)[batch.noisy_frames[-1]]


@pytest.mark.parametrize("head", [tiny_config().head, LOCAL_HEAD], ids=["thin", "local"])
@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_a_step_along_the_target_ends_where_the_sampler_does(
    head: HeadConfig, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(tiny_config(head=head))
    document = document_of(model.config)
    frames = model.config.frames_per_block
    request = GenerationRequest(
        token_ids=tuple(document.token_ids.tolist()),
        null_ids=NULL_IDS,
        uses_expert=True,
        seed=SEED,
        max_frames=frames,
        exact_frames=frames,
        prompt_latents=document.latents[:-frames],
        options=SamplingOptions(num_flow_steps=4, guidance_scale=guidance),
    )
    # The teacher's steps inside one step of the student are equal.
    monkeypatch.setattr(schedule, "time_grid", lambda steps: torch.linspace(0, 1, steps + 1))
    (block,) = Sampler(model).generate(request)
    landed = document.noise[0, -frames:] + target_of(model, document, guidance_scale=guidance)
    # float32: the same sums, over keys in another order.
    torch.testing.assert_close(landed, block.latents, atol=1e-4, rtol=1e-4)


def test_two_steps_have_a_target_each() -> None:
    model = random_model()
    times = student_times(2)
    assert times[0] == 0
    second = document_of(model.config, float(times[1]))
    target = target_of(model, second, num_flow_steps=2, num_teacher_steps=1)
    batch, null = batches(second, model.config)
    with torch.no_grad():
        velocity = [model(b).velocity.flatten(0, 1)[b.noisy_frames[-1]] for b in (batch, null)]
    guided = velocity[1] + GUIDANCE * (velocity[0] - velocity[1])
    torch.testing.assert_close(target, guided, atol=1e-5, rtol=1e-5)


def test_everything_but_the_velocity_targets_stays() -> None:
    model = random_model()
    batch, null = batches(document_of(model.config), model.config)
    changed = with_teacher_targets(
        batch, null, model, num_flow_steps=1, num_teacher_steps=2, guidance_scale=2.0
    )
    different = [
        name
        for name, value in vars(batch).items()
        if isinstance(value, torch.Tensor) and not torch.equal(value, getattr(changed, name))
    ]
    assert different == ["velocity_target"]
    assert not changed.velocity_target[~batch.flow_mask].any()
