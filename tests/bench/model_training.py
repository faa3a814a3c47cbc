"""Training step: the packed pass against a dense mask and against two passes, and the heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from model.attention import Attend, PackedAttention, arflow_mask, attend
from model.audiocalm import AudioCALM, ModelOutput
from model.batch import Document, TrainingBatch, pack
from model.config import ModelConfig
from model.cost import batch_counts, training_flops
from model.objective import loss_from, losses
from model.sequence import NOISY
from tests.bench.measure import Row, compare, peak_flops
from tests.bench.subject import PREFIX, Subject, with_local_head

_MULTIPLE = 128
"""Of the length of a row, for FlexAttention."""


def rows(subject: Subject, repeats: int) -> Iterator[Row]:
    """Packed step against its alternatives; speech against sound; the heads on one batch."""
    config, name = subject.config, subject.name
    batch = packed(subject, config)
    model = subject.built(config).train()
    peak = peak_flops(subject.device, subject.dtype)
    run = _step(model, batch)
    speed = _speed(config, batch, peak)
    tokens = batch_counts(config, batch).positions
    what = f"{name}, training step of {tokens} positions"
    dense = _step(model, batch, has_dense_mask=True)
    yield compare(what, run, "the same step with a dense mask", dense, repeats, speed)
    if subject.device.type == "cpu":
        yield from _in_bf16(subject, batch, what, run, repeats)
    yield compare(
        what,
        run,
        "two passes: clean with keys kept, then noisy",
        lambda: in_two_passes(model, batch),
        repeats,
        speed,
    )
    speech = packed(subject, config, is_speech=True)
    yield compare(
        f"{what}, sound",
        run,
        "speech: the expert runs on every token",
        _step(model, speech),
        repeats,
        speed,
    )
    local_config = with_local_head(config)
    local, local_batch = subject.built(local_config).train(), packed(subject, local_config)
    yield compare(
        f"{name}, the same documents under the local head",
        _step(local, local_batch),
        "thin head",
        run,
        repeats,
        _speed(local_config, local_batch, peak),
    )


def _in_bf16(
    subject: Subject, batch: TrainingBatch, what: str, run: Callable[[], object], repeats: int
) -> Iterator[Row]:
    """The step in bf16 against float32, and with compiled layers against without."""
    config = subject.config
    speed = _speed(config, batch, peak_flops(subject.device, torch.bfloat16))
    in_half = _step(subject.built(config).train().bfloat16(), batch)
    yield compare(f"{what}, bf16", in_half, "float32", run, repeats, speed)
    compiled = subject.built(config).train().bfloat16()
    compiled.compile_layers()
    faster = _step(compiled, batch)
    faster()  # compiles
    yield compare(f"{what}, bf16, compiled", faster, "bf16", in_half, repeats, speed)


def _speed(config: ModelConfig, batch: TrainingBatch, peak: float) -> Callable[[float], str]:
    counts = batch_counts(config, batch)
    work = training_flops(config, counts)

    def value(seconds: float) -> str:
        share = 100 * work / seconds / peak
        return (
            f"{counts.positions / seconds:,.0f} positions/s, {work / seconds / 1e9:,.1f} useful "
            f"GFLOP/s, MFU {share:.0f} % of {peak / 1e9:,.0f}"
        )

    return value


def _step(
    model: AudioCALM, batch: TrainingBatch, *, has_dense_mask: bool = False
) -> Callable[[], None]:
    """Forward and backward."""

    def run() -> None:
        if has_dense_mask:
            mask = arflow_mask(batch.mask_indices)
            model._attention = lambda _: PackedAttention(mask)  # type: ignore[method-assign]
        try:
            sums = losses(model(batch), batch)
            loss_from(sums, sums.flow_count, sums.stop_count).backward()
        finally:
            model.__dict__.pop("_attention", None)
        model.zero_grad()

    return run


def packed(subject: Subject, config: ModelConfig, *, is_speech: bool = False) -> TrainingBatch:
    """Four documents of about ten seconds in one row, in whole multiples for FlexAttention."""
    row = [document(subject, seed, is_speech=is_speech) for seed in range(4)]
    needed = sum(item.length(config.head.kind) for item in row)
    return pack([row], config, -(-needed // _MULTIPLE) * _MULTIPLE).to(subject.device)


def document(subject: Subject, seed: int, *, is_speech: bool, duration_s: float = 10.0) -> Document:
    """Audio with sixty tokens of text, two noisy copies."""
    config = subject.config
    generator = torch.Generator().manual_seed(seed)
    blocks = subject.timebase.frames_in(duration_s) // config.frames_per_block
    shape = (blocks * config.frames_per_block, config.latent_dim)
    latents = torch.randn(shape, generator=generator)
    return Document(
        token_ids=torch.tensor(PREFIX),
        latents=latents,
        history=latents,
        noise=torch.randn(2, *shape, generator=generator),
        flow_time=torch.rand(2, blocks, generator=generator),
        num_valid_frames=shape[0],
        modality="speech" if is_speech else "sound",
        uses_expert=is_speech,
        speaker=None,
    )


def in_two_passes(model: AudioCALM, batch: TrainingBatch) -> None:
    """The same loss without the packed pass: noisy frames read keys that a first pass kept."""
    config = model.config
    # Filler rows and padding are not worth a special case: they are of the first pass.
    is_noisy = batch.segment[0] == NOISY
    mask = arflow_mask(batch.mask_indices)
    embeddings = model._embed(batch)
    position = batch.position
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        kept.append((key, value))
        return attend(query, key, value, mask[:, ~is_noisy][:, :, ~is_noisy])

    def read(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = (
            torch.cat([old, new], dim=2) for old, new in zip(kept[layer], (key, value), strict=True)
        )
        order = torch.cat(
            [mask[:, is_noisy][:, :, ~is_noisy], mask[:, is_noisy][:, :, is_noisy]], 2
        )
        return attend(query, keys, values, order)

    def states(part: Tensor, attention: Attend) -> Tensor:
        rotary = model.backbone.rotary(position[:, part], model.dtype)
        return model.backbone(embeddings[:, part], rotary, attention)

    clean, noisy = states(~is_noisy, keep), states(is_noisy, read)
    blocks = rearrange(noisy[0], "(n k) d -> n k d", k=config.frames_per_block)
    # Noisy positions of a row come in the order of its blocks.
    velocity = model.flow_head(
        blocks, batch.flow_time[0, is_noisy][:: config.frames_per_block, None]
    )
    full = torch.zeros_like(batch.velocity_target)
    full[0, is_noisy] = velocity.flatten(0, 1)
    stop = torch.zeros_like(batch.stop_target)
    stop[0, ~is_noisy] = model.stop_head(clean.detach())[0]
    sums = losses(ModelOutput(full, stop), batch)
    loss_from(sums, sums.flow_count, sums.stop_count).backward()
    model.zero_grad()
