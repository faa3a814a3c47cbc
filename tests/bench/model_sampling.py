"""Sampler: cache, fused write, guidance, heads, codec, batches, and growth with length."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import torch
from einops import repeat
from torch import Tensor

from model.attention import PackedAttention
from model.audiocalm import AudioCALM
from model.codec.protocol import AudioCodec
from model.fast.choice import fast_backbone
from model.flow import time_grid
from model.inference.generation import GenerationRequest, GenerationState
from model.inference.sampler import Sampler
from tests.bench.measure import Row, compare
from tests.bench.subject import FLOW_STEPS, PREFIX, Subject, request, with_local_head

NUM_BLOCKS = 5
FEW_STEPS = 4
MINUTES = (1, 4, 16)
BATCHES = (1, 8, 32)


def rows(subject: Subject, repeats: int) -> Iterator[Row]:
    """Everything about the sampler."""
    thin = subject.built(subject.config)
    local = subject.built(with_local_head(subject.config))
    few = max(1, repeats // 2)
    yield from one_request(subject, thin, local, repeats)
    yield from first_blocks(subject, thin, local, repeats)
    yield from batches(subject, thin, few)
    yield from lengths(subject, thin, few)


def one_request(subject: Subject, thin: AudioCALM, local: AudioCALM, repeats: int) -> Iterator[Row]:
    """One request: cache, fused write, backbone, expert, head, codec."""
    frames = NUM_BLOCKS * subject.config.frames_per_block
    audio_s = subject.timebase.frames_duration_s(frames)
    sampler, local_sampler = fast_sampler(thin), fast_sampler(local)
    plain = request(frames)
    as_trained = Sampler(thin)

    def factor(seconds: float) -> str:
        return f"RTF {seconds / audio_s:.3f}"

    def run(asked: GenerationRequest, by: Sampler = sampler) -> Callable[[], object]:
        return lambda: list(by.generate(asked))

    def decode(by: Sampler) -> Callable[[], object]:
        return functools.partial(decoded, by, subject.codec, plain)

    named = f"{subject.name}, {audio_s:.1f} s, {FLOW_STEPS} steps with guidance"
    pairs = (
        (
            "cache and fused write",
            run(plain),
            "the same flow, whole history recomputed at every evaluation",
            lambda: recompute(thin, NUM_BLOCKS),
        ),
        (
            "fused write",
            run(plain),
            "a clean write of its own, as the stop decision asks for",
            run(request(frames, waits_for_stop=True)),
        ),
        (
            "the sampler's form of the backbone",
            run(plain),
            "the modules as they are trained",
            run(plain, as_trained),
        ),
        (
            "sound",
            run(plain),
            "speech: the expert runs on every token",
            run(request(frames, uses_expert=True)),
        ),
        (
            f"the same in {FLOW_STEPS // 2} steps",
            run(request(frames, num_flow_steps=FLOW_STEPS // 2)),
            f"{FLOW_STEPS} steps",
            run(plain),
        ),
        ("local head", run(plain, local_sampler), "thin head", run(plain)),
        ("thin head, codec decode included", decode(sampler), "without the codec", run(plain)),
        (
            "local head, codec decode included",
            decode(local_sampler),
            "without the codec",
            run(plain, local_sampler),
        ),
    )
    for what, ours, against, theirs in pairs:
        yield compare(f"{named}, {what}", ours, against, theirs, repeats, factor)


def first_blocks(
    subject: Subject, thin: AudioCALM, local: AudioCALM, repeats: int
) -> Iterator[Row]:
    """From the request to its first audio."""
    block = subject.config.frames_per_block
    for name, model in (("thin", thin), ("local", local)):
        by = fast_sampler(model)
        yield compare(
            f"{subject.name}, {name} head, first audio of a request: prefill, block, codec",
            functools.partial(decoded, by, subject.codec, request(block)),
            "first two blocks",
            functools.partial(decoded, by, subject.codec, request(2 * block)),
            repeats,
        )


def batches(subject: Subject, model: AudioCALM, repeats: int) -> Iterator[Row]:
    """Requests that arrive together: throughput, and the time to everyone's first block."""
    is_cuda = subject.device.type == "cuda"
    steps = FLOW_STEPS if is_cuda else FEW_STEPS
    block = subject.config.frames_per_block
    frames = 2 * block
    audio_s = subject.timebase.frames_duration_s(frames)
    sampler = fast_sampler(model)
    for batch in BATCHES:
        asked = [request(frames, seed, num_flow_steps=steps) for seed in range(batch)]
        firsts = [request(block, seed, num_flow_steps=steps) for seed in range(batch)]
        named = f"{subject.name}, {batch} requests in one batch, {steps} steps"

        def speed(seconds: float, batch: int = batch) -> str:
            rate = batch * audio_s / seconds
            return f"{rate:.1f} audio-seconds per second, RTF {seconds / audio_s:.3f}"

        if batch > 1:
            yield compare(
                named,
                functools.partial(together, sampler, asked),
                "the same requests one after the other",
                functools.partial(one_by_one, sampler, asked),
                repeats,
                speed,
            )
            yield compare(
                f"{named}, first block of all",
                functools.partial(together, sampler, firsts),
                "first block of one alone",
                functools.partial(together, sampler, firsts[:1]),
                repeats,
            )


def lengths(subject: Subject, model: AudioCALM, repeats: int) -> Iterator[Row]:
    """A block behind minutes of audio against a block behind none."""
    frames = subject.timebase.frames_in(60.0)
    sampler = fast_sampler(model)
    for minutes in MINUTES:
        long, short = (
            behind(subject, sampler, request(frames, num_flow_steps=FEW_STEPS), m)
            for m in (minutes, 0)
        )
        yield compare(
            f"{subject.name}, a block behind {minutes} min of audio, {FEW_STEPS} steps with "
            "guidance",
            lambda state=long: sampler.step([state]),  # type: ignore[misc]
            "a block behind none",
            lambda state=short: sampler.step([state]),  # type: ignore[misc]
            repeats,
        )


def fast_sampler(model: AudioCALM) -> Sampler:
    """A sampler as the product builds it."""
    return Sampler(model, fast_backbone(model.backbone))


@torch.inference_mode()
def decoded(sampler: Sampler, codec: AudioCodec, asked: GenerationRequest) -> None:
    """Generate and decode block by block."""
    states = [codec.initial_state()]
    for block in sampler.generate(asked):
        _, states = codec.decode_stream(block.latents[None], states, [block.is_last])


def one_by_one(sampler: Sampler, requests: list[GenerationRequest]) -> None:
    """Generate the requests one after the other."""
    for item in requests:
        list(sampler.generate(item))


def together(sampler: Sampler, requests: list[GenerationRequest]) -> None:
    """Step all requests until all are done."""
    states = [sampler.open(item) for item in requests]
    while active := [state for state in states if not state.is_done]:
        sampler.step(active)


@torch.inference_mode()
def behind(
    subject: Subject, sampler: Sampler, asked: GenerationRequest, minutes: int
) -> GenerationState:
    """An open request with random keys in place of minutes of audio before it."""
    block = subject.config.frames_per_block
    num_blocks = subject.timebase.frames_in(60.0 * minutes) // block
    room = dataclasses.replace(asked, exact_frames=num_blocks * block + asked.frame_limit)
    state = sampler.open(room)
    for memory in (sampler.cache.keys, sampler.cache.values):
        own = memory[:, state.cache.rows, :, state.cache.length :]
        own[:, :, :, : num_blocks * block].normal_()
    state.cache.length += num_blocks * block
    state.cache.num_ready = state.cache.length
    state.block_index += num_blocks
    return state


@torch.no_grad()
def recompute(model: AudioCALM, num_blocks: int) -> Tensor:
    """The sampler's arithmetic without a cache: prefix and all clean blocks run every time."""
    config = model.config
    frames, width = config.frames_per_block, config.latent_dim
    device = model.device
    clean = torch.zeros(0, width, device=device)
    prefix = model.embed_prefix(torch.tensor([PREFIX], device=device), None)
    for block in range(num_blocks):
        latents = torch.randn(frames, width, device=device)
        place = torch.arange(len(PREFIX) + (block + 1) * frames)
        position = repeat(place, "s -> 2 s").to(device)
        rotary = model.backbone.rotary(position, model.dtype)
        is_text = place < len(PREFIX)
        index = torch.where(is_text, 0, (place - len(PREFIX)) // frames + 1)
        visible = index[:, None] >= index[None, :]
        causal = torch.ones(len(index), len(index), dtype=torch.bool).tril()
        mask = torch.where(is_text[:, None] & is_text[None, :], causal, visible)
        attention = PackedAttention(repeat(mask, "q k -> 2 q k").to(device))
        history = torch.cat([prefix, model.embed_clean(clean)[None]], 1)
        grid = time_grid(FLOW_STEPS).to(device)
        for start, end in itertools.pairwise(grid):
            time = model.embed_time(start.expand(1, frames))
            noisy = model.latent_proj(latents[None].to(model.dtype)) + time
            rows_ = repeat(torch.cat([history, noisy], 1), "1 s d -> 2 s d")
            hidden = model.backbone(rows_, rotary, attention, None)[:, -frames:]
            velocity = model.flow_head(hidden, start.expand(2, frames))
            latents = latents + (end - start) * (2 * velocity[0] - velocity[1])
        clean = torch.cat([clean, latents])
    return clean
