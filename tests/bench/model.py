"""Sampler and training step of the tiny preset with random weights."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import torch
from einops import rearrange, repeat
from torch import Tensor

from model.attention import PackedAttention, arflow_mask, attend
from model.audiocalm import AudioCALM, ModelOutput
from model.batch import Document, TrainingBatch, pack
from model.codec.protocol import AudioCodec
from model.codec.registry import build_codec, codec_preset
from model.config import ModelConfig, preset
from model.cost import batch_counts, training_work
from model.flow import time_grid
from model.generation import GenerationRequest, GenerationState, Sampler, SamplingOptions
from model.objective import loss_from, losses
from model.sequence import NOISY, document_layout
from model.timebase import Timebase
from tests.bench.measure import Row, compare

NUM_BLOCKS = 10
FLOW_STEPS = 16
FEW_STEPS = 4
PREFIX = tuple(range(60))
MINUTES = (1, 4, 16)
BATCHES = (8, 32)
TIMEBASE = Timebase(16_000, 640)


def rows(repeats: int) -> Iterator[Row]:
    """Sampler, then training step; each figure against a named alternative."""
    torch.manual_seed(0)
    config = preset("tiny")
    thin = AudioCALM(config).eval()
    local = AudioCALM(with_local_head(config)).eval()
    yield from sampler_rows(thin, local, repeats)
    yield from batch_rows(thin, max(1, repeats // 2))
    yield from length_rows(thin, max(1, repeats // 2))
    yield from training_rows(config, max(1, repeats // 2))


def with_local_head(config: ModelConfig) -> ModelConfig:
    """The same backbone, a local head as wide and deep as the thin one."""
    return dataclasses.replace(config, head=dataclasses.replace(config.head, kind="local"))


def sampler_rows(thin: AudioCALM, local: AudioCALM, repeats: int) -> Iterator[Row]:
    """One request: cache, fused write, expert, head, codec, first block."""
    frames = NUM_BLOCKS * thin.config.frames_per_block
    audio_s = TIMEBASE.frames_duration_s(frames)
    codec = build_codec(codec_preset("tiny"))
    sampler, local_sampler = Sampler(thin), Sampler(local)
    sound = request(frames)

    def factor(seconds: float) -> str:
        return f"RTF {seconds / audio_s:.3f}"

    def run(asked: GenerationRequest, by: Sampler = sampler) -> Callable[[], object]:
        return lambda: list(by.generate(asked))

    named = f"tiny, {audio_s:.1f} s, {FLOW_STEPS} steps with guidance"
    few = max(1, repeats // 2)
    yield compare(
        f"{named}, cache and fused write",
        run(sound),
        "the same flow, whole history recomputed at every evaluation",
        lambda: recompute(thin, NUM_BLOCKS),
        few,
        factor,
    )
    waiting = request(frames, waits_for_stop=True)
    against = "a clean write of its own, as the stop decision asks for"
    yield compare(f"{named}, fused write", run(sound), against, run(waiting), repeats, factor)
    speech = request(frames, uses_expert=True)
    against = "speech: the expert runs on every token"
    yield compare(f"{named}, sound", run(sound), against, run(speech), repeats, factor)
    yield compare(
        f"{named}, local head",
        run(sound, local_sampler),
        "thin head",
        run(sound),
        repeats,
        factor,
    )
    for name, by in (("thin", sampler), ("local", local_sampler)):
        yield compare(
            f"{named}, {name} head, codec decode included",
            functools.partial(decoded, by, codec, sound),
            "without the codec",
            run(sound, by),
            repeats,
            factor,
        )
    block = thin.config.frames_per_block
    for name, by in (("thin", sampler), ("local", local_sampler)):
        yield compare(
            f"tiny, {name} head, first block of a request with prefill and codec decode",
            functools.partial(decoded, by, codec, request(block)),
            "first two blocks",
            functools.partial(decoded, by, codec, request(2 * block)),
            repeats,
        )


def batch_rows(model: AudioCALM, repeats: int) -> Iterator[Row]:
    """Many requests in one step against one after the other."""
    frames = 4 * model.config.frames_per_block
    audio_s = TIMEBASE.frames_duration_s(frames)
    for batch in BATCHES:
        asked = [request(frames, seed, flow_steps=FEW_STEPS) for seed in range(batch)]
        yield compare(
            f"tiny, {batch} requests in one batch, {FEW_STEPS} steps",
            functools.partial(together, model, asked),
            "the same requests one after the other",
            functools.partial(one_by_one, model, asked),
            repeats,
            lambda seconds, n=batch: f"{n * audio_s / seconds:.1f} audio-seconds per second",
        )


def length_rows(model: AudioCALM, repeats: int) -> Iterator[Row]:
    """A block behind minutes of audio against a block behind none."""
    frames = TIMEBASE.frames_in(60.0)
    sampler = Sampler(model)
    for minutes in MINUTES:
        long, short = (
            behind(sampler, request(frames, flow_steps=FEW_STEPS), m) for m in (minutes, 0)
        )
        yield compare(
            f"tiny, a block behind {minutes} min of audio, {FEW_STEPS} steps with guidance",
            lambda state=long: sampler.step([state]),
            "a block behind none",
            lambda state=short: sampler.step([state]),
            repeats,
        )


def training_rows(config: ModelConfig, repeats: int) -> Iterator[Row]:
    """The packed step against separate passes, and the two heads on the same documents."""
    row = [document(config, seed) for seed in range(4)]
    length = sum(item.length() for item in row)
    batch = pack([row], config, length)
    model = AudioCALM(config).train()
    work = training_work(config, batch_counts(config, batch)).total

    def speed(seconds: float) -> str:
        return f"{length / seconds:.0f} positions/s, {work / seconds / 1e9:.1f} useful GFLOP/s"

    yield compare(
        f"tiny, training step of {length} packed positions",
        lambda: train(model, batch),
        "two passes: clean with keys kept, then noisy",
        lambda: train_in_two_passes(model, batch),
        repeats,
        speed,
    )
    local = AudioCALM(with_local_head(config)).train()
    local_batch = pack([row], local.config, sum(item.length("local") for item in row))
    yield compare(
        "tiny, the same documents under the local head",
        lambda: train(local, local_batch),
        "thin head",
        lambda: train(model, batch),
        repeats,
    )


def document(config: ModelConfig, seed: int) -> Document:
    """Ten seconds with sixty tokens of text, two noisy copies."""
    generator = torch.Generator().manual_seed(seed)
    blocks = 256 // config.frames_per_block
    shape = (blocks * config.frames_per_block, config.latent_dim)
    latents = torch.randn(shape, generator=generator)
    return Document(
        token_ids=torch.tensor(PREFIX),
        latents=latents,
        history=latents,
        noise=torch.randn(2, *shape, generator=generator),
        flow_time=torch.rand(2, blocks, generator=generator),
        num_valid_frames=shape[0],
        modality="sound",
        uses_expert=False,
        speaker=None,
    )


def train(model: AudioCALM, batch: TrainingBatch) -> None:
    """Forward and backward."""
    sums = losses(model(batch), batch)
    loss_from(sums, sums.flow_count, sums.stop_count).backward()


def train_in_two_passes(model: AudioCALM, batch: TrainingBatch) -> None:
    """The same loss without the packed pass: noisy frames read keys that a first pass kept."""
    config = model.config
    is_noisy = batch.segment[0] == NOISY
    indices = (batch.document, batch.segment, batch.block, batch.copy)
    mask = arflow_mask(*indices, config.window_blocks)
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

    clean = model.backbone(embeddings[:, ~is_noisy], position[:, ~is_noisy], keep)
    noisy = model.backbone(embeddings[:, is_noisy], position[:, is_noisy], read)
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


def request(
    frames: int,
    seed: int = 0,
    *,
    uses_expert: bool = False,
    flow_steps: int = FLOW_STEPS,
    waits_for_stop: bool = False,
) -> GenerationRequest:
    """A request of one length, whether the stop head is asked or not."""
    options = SamplingOptions(
        num_flow_steps=flow_steps, guidance_scale=2.0, stop_threshold=1 - 1e-9
    )
    return GenerationRequest(
        token_ids=PREFIX,
        null_ids=PREFIX[:2],
        uses_expert=uses_expert,
        seed=seed,
        max_frames=frames,
        exact_frames=None if waits_for_stop else frames,
        options=options,
    )


@torch.inference_mode()
def decoded(sampler: Sampler, codec: AudioCodec, asked: GenerationRequest) -> None:
    """Generate and decode block by block."""
    states = [codec.initial_state()]
    for block in sampler.generate(asked):
        _, states = codec.decode_stream(block.latents[None], states, [block.is_last])


def one_by_one(model: AudioCALM, requests: list[GenerationRequest]) -> None:
    """Generate the requests one after the other."""
    sampler = Sampler(model)
    for item in requests:
        list(sampler.generate(item))


@torch.inference_mode()
def behind(sampler: Sampler, asked: GenerationRequest, minutes: int) -> GenerationState:
    """An open request with random keys in place of minutes of audio before it."""
    state = sampler.open(asked)
    cache, block = state.cache, sampler.model.config.frames_per_block
    num_blocks = TIMEBASE.frames_in(60.0 * minutes) // block
    cache.reserve((num_blocks + 2) * block)
    cache.keys[:, :, :, cache.num_slots :].normal_()
    cache.values[:, :, :, cache.num_slots :].normal_()
    cache.num_blocks += num_blocks
    state.block_index += num_blocks
    return state


def together(model: AudioCALM, requests: list[GenerationRequest]) -> None:
    """Step all requests until all are done."""
    sampler = Sampler(model)
    states = [sampler.open(item) for item in requests]
    while active := [state for state in states if not state.is_done]:
        sampler.step(active)


@torch.no_grad()
def recompute(model: AudioCALM, num_blocks: int) -> Tensor:
    """The sampler's arithmetic without a cache: prefix and all clean blocks run every time."""
    config = model.config
    frames, width = config.frames_per_block, config.latent_dim
    clean = torch.zeros(0, width)
    prefix = model.embed_prefix(torch.tensor([PREFIX]), None)
    for block in range(num_blocks):
        latents = torch.randn(frames, width)
        layout = document_layout(len(PREFIX), (block + 1) * frames, 0, frames)
        position = repeat(layout.position, "s -> 2 s")
        index = torch.where(layout.segment == 0, torch.zeros_like(layout.block), layout.block + 1)
        visible = index[:, None] >= index[None, :]
        prefix_rows = layout.segment == 0
        causal = torch.ones(len(index), len(index), dtype=torch.bool).tril()
        mask = torch.where(prefix_rows[:, None] & prefix_rows[None, :], causal, visible)
        attention = PackedAttention(repeat(mask, "q k -> 2 q k"))
        history = torch.cat([prefix, model.embed_clean(clean)[None]], 1)
        grid = time_grid("sway", FLOW_STEPS)
        for start, end in itertools.pairwise(grid):
            noisy = model.embed_noisy(latents[None], model.embed_time(start.expand(1, frames)))
            rows_ = repeat(torch.cat([history, noisy], 1), "1 s d -> 2 s d")
            hidden = model.backbone(rows_, position, attention, None)[:, -frames:]
            velocity = model.flow_head(hidden, start.expand(2, frames))
            latents = latents + (end - start) * (2 * velocity[0] - velocity[1])
        clean = torch.cat([clean, latents])
    return clean
