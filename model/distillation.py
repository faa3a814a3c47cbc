"""Few-step students: a teacher's guided flow as velocity targets of an ordinary training batch.

A student needs one or two evaluations a block and no unconditional row. At each time t of its
grid it learns the average velocity to the next time s,

    u(z, t) = (Phi(z, t, s) - z) / (s - t),

where Phi solves the teacher's flow dz/dt = v_u + w (v_c - v_u) in several small steps. So the
student's Euler step from t to s lands where the teacher's many steps do, guidance included. Start
points are the feed's own: noise at t = 0, the path between noise and data at later times.

Why this and not a consistency or MeanFlow loss: Phi is a deterministic function of noise and
context, so plain regression has no bias to average over; there are only one or two fixed times, so
the network needs no second time as input and keeps its shape; and its derivative with respect to
time, which MeanFlow (arXiv:2505.13447) and sCM need, would pass through the whole backbone, which
denoises under the thin head. The price are the teacher's passes, 2 x `num_teacher_steps` forward
passes without gradients a step.

Source:
    Regression onto several teacher steps: progressive distillation, arXiv:2202.00512, section 3,
    without its halving rounds, since a step here is regressed directly. Guidance folded into the
    student: arXiv:2210.03142, section 3.1, at one fixed scale.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from model.audiocalm import AudioCALM
from model.batch import TrainingBatch
from model.flow import guided_velocity, time_grid


@torch.no_grad()
def with_teacher_targets(
    batch: TrainingBatch,
    null_batch: TrainingBatch,
    teacher: AudioCALM,
    *,
    num_flow_steps: int,
    num_teacher_steps: int,
    guidance_scale: float,
) -> TrainingBatch:
    """The batch with the teacher's average velocity to the next time as its velocity target.

    Args:
        batch: Its flow times lie on the student's grid, `student_times`.
        null_batch: The same documents, noise and times under the null prefix
            (`Document.without_condition`).
        teacher: Gives the velocities; in eval mode.
        num_flow_steps: Evaluations a block of the student.
        num_teacher_steps: Steps of the teacher in one of the student's.
        guidance_scale: Guidance that is folded in; 1 needs no null batch and reads none.
    """
    places = batch.noisy_frames.flatten()
    start_time = batch.flow_time.flatten()[batch.noisy_frames[:, :1]]
    grid = time_grid(num_flow_steps).to(start_time.device)
    # The nearest time of the grid, whatever its last digits.
    index = (start_time - grid[:-1]).abs().argmin(dim=1)
    duration = (grid[index + 1] - grid[index])[:, None]
    latents = batch.latent_inputs.flatten(0, 1)[batch.noisy_frames].float()
    start = latents
    for step in range(num_teacher_steps):
        time = start_time + duration * step / num_teacher_steps
        velocity = _velocity(teacher, batch, latents, time)
        if guidance_scale != 1:
            null = _velocity(teacher, null_batch, latents, time)
            scale = velocity.new_full((len(velocity),), guidance_scale)
            velocity = guided_velocity(velocity, null, scale)
        latents = latents + (duration / num_teacher_steps)[:, :, None] * velocity
    average = (latents - start) / duration[:, :, None]
    target = batch.velocity_target.flatten(0, 1).index_copy(0, places, average.flatten(0, 1))
    return dataclasses.replace(batch, velocity_target=target.view_as(batch.velocity_target))


def student_times(num_flow_steps: int) -> Float[Tensor, " times"]:
    """Flow times at which a student of so many steps is evaluated."""
    return time_grid(num_flow_steps)[:-1]


def _velocity(
    teacher: AudioCALM,
    batch: TrainingBatch,
    latents: Float[Tensor, "noisy_blocks block_frames latent_dim"],
    time: Float[Tensor, "noisy_blocks 1"],
) -> Float[Tensor, "noisy_blocks block_frames latent_dim"]:
    """The teacher's velocity of every noisy block, at other latents and times than the batch's."""
    places = batch.noisy_frames.flatten()
    inputs = batch.latent_inputs.flatten(0, 1).index_copy(0, places, latents.flatten(0, 1))
    times = time.expand(-1, batch.noisy_frames.shape[1]).flatten()
    moved = dataclasses.replace(
        batch,
        latent_inputs=inputs.view_as(batch.latent_inputs),
        flow_time=batch.flow_time.flatten().index_copy(0, places, times).view_as(batch.flow_time),
    )
    return teacher(moved).velocity.flatten(0, 1)[batch.noisy_frames]
