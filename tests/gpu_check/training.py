"""A bf16 training step: loss against float32, memory against the formula, MFU, recompilations."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from model.audiocalm import AudioCALM
from model.batch import Document, TrainingBatch, pack
from model.config import ModelConfig
from model.cost import batch_counts, training_flops
from model.layers import ZeroProjection, materialise, shapes_only
from model.objective import loss_from, losses
from model.optim import OptimConfig, adamw, update_average
from pipeline.training.hardware import activation_bytes, peak_flops, training_bytes
from tests.bench.measure import seconds
from tests.bench.model_training import document
from tests.bench.subject import Subject
from tests.gpu_check.rows import Plan, Row

_GIB = 2**30
_LOSS_TOLERANCE = 0.02
"""Relative difference of the loss in bf16 and in float32, as the engine's test on a CPU allows."""
_MEMORY_TOLERANCE = 0.15
"""Fragments, kernel workspaces and what the formula leaves out."""
_FILL = 0.95
"""Share of the memory that a variant may need by the formula."""
_UPDATE_CHUNK = 16
"""Parameters whose float32 gradients exist at once."""


@dataclass(frozen=True)
class _Variant:
    name: str
    recomputes: bool = False
    compiles: bool = False


def training_rows(plan: Plan, name: str) -> Iterator[Row]:
    """Every measurement of one preset."""
    config = plan.config(name)
    batches = [
        packed(plan, name, num_speech).to(plan.device) for num_speech in range(plan.num_steps + 1)
    ]
    model = random_model(config, plan.device)
    with torch.no_grad():
        expected = float(_loss(model, batches[0]))
    training = HalfTraining(model)
    with torch.no_grad():
        given = float(_loss(model, batches[0]))
    gap = abs(given - expected) / expected
    yield Row(
        f"training {name}",
        "loss in bf16 against float32",
        f"{given:.5f} against {expected:.5f}, {100 * gap:.2f} % apart",
        f"at most {100 * _LOSS_TOLERANCE:g} %",
        "ok" if gap <= _LOSS_TOLERANCE else "FAILED",
    )
    is_tight = name in plan.recomputed
    variants = [] if is_tight else [_Variant("eager")]
    variants += [
        _Variant("layers recomputed", recomputes=True),
        _Variant("layers compiled", recomputes=is_tight, compiles=True),
    ]
    for variant in variants:
        yield from _variant_rows(plan, name, training, batches, variant)


def _variant_rows(
    plan: Plan,
    name: str,
    training: HalfTraining,
    batches: list[TrainingBatch],
    variant: _Variant,
) -> Iterator[Row]:
    part, config, model = f"training {name}, {variant.name}", plan.config(name), training.model
    counts = [batch_counts(config, batch) for batch in batches]
    formula = training_bytes(training.num_parameters, 1, 1) + max(
        activation_bytes(config, held, recomputes_layers=variant.recomputes) for held in counts
    )
    obstacle = _obstacle(plan, variant, formula)
    if obstacle:
        yield Row(part, "all", "", "", f"not run: {obstacle}")
        return
    if not plan.is_rehearsal:
        torch.cuda.reset_peak_memory_stats()
    model.backbone.recomputes_layers = variant.recomputes
    if variant.compiles:
        model.compile_layers()
    # Twice: the number of the expert's tokens becomes dynamic with the second batch.
    for batch in batches[:2]:
        training.step(batch)
    before = _num_graphs()
    times = [seconds(lambda batch=batch: training.step(batch)) for batch in batches[1:]]  # type: ignore[misc]
    num_new = _num_graphs() - before
    step_s = statistics.median(times)
    yield Row(
        part, "step", f"{1e3 * step_s:.0f} ms, {counts[1].positions / step_s:,.0f} positions/s"
    )
    if plan.is_rehearsal:
        yield Row(part, "MFU", "", "", "not run: no peak is known for a CPU")
        yield Row(part, "peak memory", "", "", "not run: counted on CUDA only")
    else:
        yield _mfu(part, sum(training_flops(config, held) for held in counts[1:]), sum(times))
        yield _peak_memory(part, formula)
    yield Row(
        part,
        "graphs compiled after the second step",
        str(num_new),
        "0",
        "ok" if num_new == 0 else "FAILED",
    )


def _obstacle(plan: Plan, variant: _Variant, formula: float) -> str:
    """Reason why a variant cannot run on this device; empty if it can."""
    if plan.is_rehearsal:
        return "compiled on GPUs only" if variant.compiles else ""
    available = torch.cuda.get_device_properties(plan.device).total_memory
    if formula > _FILL * available:
        return f"too little memory for the {formula / _GIB:.0f} GiB of the formula"
    return ""


def _peak_memory(part: str, formula: float) -> Row:
    peak = torch.cuda.max_memory_allocated()
    return Row(
        part,
        "peak memory",
        f"{peak / _GIB:.1f} GiB",
        f"formula {formula / _GIB:.1f} GiB, at most {100 * _MEMORY_TOLERANCE:g} % above",
        "ok" if peak <= (1 + _MEMORY_TOLERANCE) * formula else "FAILED",
    )


def _mfu(part: str, work: int, time_s: float) -> Row:
    peak = peak_flops(torch.cuda.get_device_name())
    if peak is None:
        return Row(part, "MFU", f"{work / time_s / 1e12:.0f} useful TFLOP/s", "peak not known")
    share = f"{100 * work / time_s / peak:.1f} % of {peak / 1e12:.0f} TFLOP/s"
    return Row(part, "MFU, update included", share)


class HalfTraining:
    """bf16 weights and gradients, float32 master weights, moments and average, in plain torch.

    What the engine does on one worker, so that its memory formula can be checked without it.

    Args:
        model: Becomes bf16 in place.
    """

    def __init__(self, model: AudioCALM) -> None:
        config = OptimConfig()
        self._masters = [nn.Parameter(p.detach().float().clone()) for p in model.parameters()]
        self._average = [master.detach().clone() for master in self._masters]
        self._optimizer = adamw([{"params": self._masters}], config)
        self.model = model.to(torch.bfloat16)
        self.num_parameters = sum(master.numel() for master in self._masters)

    def step(self, batch: TrainingBatch) -> None:
        """One update from one micro-batch."""
        _loss(self.model, batch).backward()
        pairs = iter(zip(self._masters, self.model.parameters(), strict=True))
        while chunk := list(itertools.islice(pairs, _UPDATE_CHUNK)):
            for master, weight in chunk:
                assert weight.grad is not None
                master.grad = weight.grad.float()
                weight.grad = None
            self._optimizer.step()
            with torch.no_grad():
                for master, weight in chunk:
                    weight.copy_(master)
                    master.grad = None
        update_average(self._average, [m.detach() for m in self._masters], decay=0.999)


def random_model(config: ModelConfig, device: torch.device) -> AudioCALM:
    """A float32 model whose velocities are as large as the noise: no projection is zero."""
    torch.manual_seed(0)
    with shapes_only():
        model = AudioCALM(config)
    materialise(model, device).train()
    for module in model.modules():
        if isinstance(module, ZeroProjection):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


def packed(plan: Plan, name: str, num_speech: int) -> TrainingBatch:
    """One full row of documents, the first so many of which use the expert."""
    subject, config, used = Subject(name), plan.config(name), 0
    row: list[Document] = []
    while True:
        is_speech = len(row) <= num_speech
        made = document(subject, len(row), is_speech=is_speech, duration_s=plan.audio_s)
        used += made.length(config.head.kind)
        if used > plan.pack_length:
            return pack([row], config, plan.pack_length)
        row.append(made)


def _loss(model: AudioCALM, batch: TrainingBatch) -> torch.Tensor:
    sums = losses(model(batch), batch)
    return loss_from(sums, sums.flow_count, sums.stop_count)


def _num_graphs() -> int:
    """Graphs that TorchDynamo has compiled in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
