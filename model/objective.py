"""Loss as sums and counts, so that averages over ranks and micro-batches are exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from model.audiocalm import ModelOutput
from model.batch import TrainingBatch
from model.config import MODALITIES

DURATION_WEIGHT = 0.1
"""Weight of the duration loss next to the flow loss: a choice, that of the stop loss."""
NUM_TIME_BINS = 10
"""Equal bins of flow time in which the flow loss is accounted."""

_SIZES = (1, 1, len(MODALITIES), len(MODALITIES), NUM_TIME_BINS, NUM_TIME_BINS, 1, 1, 1, 1)


@dataclass(frozen=True)
class LossSums:
    """Sums over positions, and how many there were; all float32, counts included.

    Attributes:
        flow_sum: Squared velocity error, mean over the latent dimension, summed over positions.
        flow_count: Noisy positions.
        modality_sum: `flow_sum` of every modality, in the order of `MODALITIES`.
        modality_count: Noisy positions of every modality.
        bin_sum: `flow_sum` of every tenth of flow time.
        bin_count: Noisy positions of every tenth of flow time.
        stop_sum: Binary cross-entropy of the stop decision.
        stop_count: Positions of the stop loss.
        duration_sum: Half the Poisson deviance of the frames of transcript tokens; at its minimum
            the expected number is predicted.
        duration_count: Transcript tokens.
    """

    flow_sum: Float[Tensor, ""]
    flow_count: Float[Tensor, ""]
    modality_sum: Float[Tensor, " modalities"]
    modality_count: Float[Tensor, " modalities"]
    bin_sum: Float[Tensor, " bins"]
    bin_count: Float[Tensor, " bins"]
    stop_sum: Float[Tensor, ""]
    stop_count: Float[Tensor, ""]
    duration_sum: Float[Tensor, ""]
    duration_count: Float[Tensor, ""]

    def to_vector(self) -> Float[Tensor, " sums"]:
        """All of them as one detached float64 vector, to be summed over ranks."""
        return torch.cat([part.detach().double().reshape(-1) for part in vars(self).values()])

    @staticmethod
    def from_vector(vector: Float[Tensor, " sums"]) -> LossSums:
        """Inverse of `to_vector`, without gradients; vectors may be added first.

        Raises:
            ValueError: If the vector is not of `VECTOR_LENGTH`.
        """
        if vector.shape != (VECTOR_LENGTH,):
            raise ValueError(f"vector of shape {tuple(vector.shape)}; expected ({VECTOR_LENGTH},)")
        parts = [
            part[0] if size == 1 else part
            for part, size in zip(vector.split(_SIZES), _SIZES, strict=True)
        ]
        return LossSums(*parts)

    def means(self) -> dict[str, float]:
        """Averages for the log: `flow`, `flow/<modality>`, `flow/time_<bin>`, `stop`, `duration`,
        and the share of noisy positions in each bin of flow time, `flow_time/share_<bin>`.

        An average over no position has no entry.
        """
        pairs = {
            "flow": (self.flow_sum, self.flow_count),
            "stop": (self.stop_sum, self.stop_count),
            "duration": (self.duration_sum, self.duration_count),
        }
        for index, name in enumerate(MODALITIES):
            pairs[f"flow/{name}"] = self.modality_sum[index], self.modality_count[index]
        for index in range(NUM_TIME_BINS):
            pairs[f"flow/time_{index}"] = self.bin_sum[index], self.bin_count[index]
            pairs[f"flow_time/share_{index}"] = self.bin_count[index], self.flow_count
        return {
            name: float(total.detach() / count)
            for name, (total, count) in pairs.items()
            if count > 0
        }


VECTOR_LENGTH = sum(_SIZES)
"""Length of `LossSums.to_vector`."""


def losses(output: ModelOutput, batch: TrainingBatch) -> LossSums:
    """Sums and counts of one micro-batch; the sums of flow, stop and duration carry gradients."""
    error = (output.velocity.float() - batch.velocity_target).square().mean(-1)
    mask = batch.flow_mask.float()
    error = torch.where(batch.flow_mask, error, 0.0)
    stop = F.binary_cross_entropy_with_logits(
        output.stop_logit.float(), batch.stop_target, reduction="none"
    )
    stop = torch.where(batch.stop_mask, stop, 0.0)

    duration = torch.zeros_like(stop)
    if output.log_duration is not None:
        # Masked first: what the head says elsewhere may overflow, and would spoil the gradient.
        frames, log = batch.duration_target, torch.where(batch.is_word, output.log_duration, 0.0)
        deviance = torch.xlogy(frames, frames) - frames * log - frames + log.exp()
        duration = torch.where(batch.is_word, deviance, 0.0)

    modality = batch.modality.clamp_min(0).long()
    time_bin = (batch.flow_time * NUM_TIME_BINS).long().clamp(0, NUM_TIME_BINS - 1)
    return LossSums(
        flow_sum=error.sum(),
        flow_count=mask.sum(),
        modality_sum=_sum_by(error.detach(), modality, len(MODALITIES)),
        modality_count=_sum_by(mask, modality, len(MODALITIES)),
        bin_sum=_sum_by(error.detach(), time_bin, NUM_TIME_BINS),
        bin_count=_sum_by(mask, time_bin, NUM_TIME_BINS),
        stop_sum=stop.sum(),
        stop_count=batch.stop_mask.float().sum(),
        duration_sum=duration.sum(),
        duration_count=batch.is_word.float().sum() * (output.log_duration is not None),
    )


def flow_by_document(
    output: ModelOutput, batch: TrainingBatch
) -> tuple[Float[Tensor, "batch documents"], Float[Tensor, "batch documents"]]:
    """`flow_sum` and `flow_count` of every document, without gradients; 0 where a row has fewer."""
    error = (output.velocity.detach().float() - batch.velocity_target).square().mean(-1)
    shape = batch.speaker.shape[:2]
    row = torch.arange(shape[0], device=batch.document.device)[:, None]
    slot = (row * shape[1] + batch.document)[batch.flow_mask]
    sums, counts = (
        torch.zeros(shape.numel(), device=slot.device).index_add(0, slot, values).view(shape)
        for values in (error[batch.flow_mask], torch.ones(len(slot), device=slot.device))
    )
    return sums, counts


def loss_from(
    sums: LossSums,
    global_flow_count: float | Tensor,
    global_stop_count: float | Tensor,
    stop_weight: float = 0.1,
    *,
    global_duration_count: float | Tensor = 0.0,
) -> Float[Tensor, ""]:
    """Share of one micro-batch in the loss of one optimiser step.

    Over all ranks and micro-batches of the step these shares add up to the loss of the whole
    batch at once. Where the engine averages gradients over ranks or micro-batches instead of
    adding them, multiply by what it divides by.

    Args:
        sums: Sums of this micro-batch.
        global_flow_count: `flow_count` summed over all ranks and micro-batches of the step.
        global_stop_count: `stop_count`, likewise.
        stop_weight: Weight of the stop loss; 0.1 is that of pocket-tts.
        global_duration_count: `duration_count`, summed likewise.
    """
    flow = sums.flow_sum / torch.as_tensor(global_flow_count).clamp_min(1).to(sums.flow_sum)
    stop = sums.stop_sum / torch.as_tensor(global_stop_count).clamp_min(1).to(sums.stop_sum)
    durations = torch.as_tensor(global_duration_count).clamp_min(1)
    duration = sums.duration_sum / durations.to(sums.duration_sum)
    return flow + stop_weight * stop + DURATION_WEIGHT * duration


def _sum_by(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    zeros = values.new_zeros(num_groups)
    return zeros.index_add(0, group.flatten(), values.flatten())
