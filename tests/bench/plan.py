"""`python -m tests.bench.plan`: parameters, memory and operations of every preset, as a table."""

from __future__ import annotations

import dataclasses

from model.codec.registry import codec_shape
from model.config import PRESETS, ModelConfig
from model.cost import Counts, document_counts, forward_flops, sizes, training_flops
from model.inference.generation import SamplingOptions
from pipeline.training.hardware import activation_bytes, training_bytes

WORKERS = 8
TEXT = 80
NULL_TEXT = 2
SECONDS = 30
STAGES = (0, 1, 2, 3)
POSITIONS = 8192


def main() -> None:
    """Print the table."""
    head = ["preset", "parameters", "expert"]
    head += [f"GB a worker, ZeRO-{stage}" for stage in STAGES]
    head += ["GB activations", "GB activations, layers recomputed"]
    head += ["KV kB a second", "training TFLOP a second", "thin, TFLOP a second"]
    head += ["local, TFLOP a second"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name, config in PRESETS.items():
        print(f"| {' | '.join(cells(name, config))} |")
    print(
        f"\n{WORKERS} workers; bf16 weights and gradients, float32 master weights, moments and "
        f"average. Activations: a micro-batch of {POSITIONS} positions of sound, bf16, uncompiled. "
        f"{SECONDS} s of audio, {TEXT} tokens of text, one noisy "
        "copy. Sampling: 16 steps with guidance, not speech; speech adds the expert's share. KV: "
        "bf16, one row; guidance has two. A second is of audio."
    )


def cells(name: str, config: ModelConfig) -> list[str]:
    """One row."""
    count = sizes(config)
    rate = codec_shape("tiny" if name == "tiny" else "paper")[0].frame_rate
    frames = round(SECONDS * rate) // config.frames_per_block * config.frames_per_block
    duration_s = frames / rate
    document = document_counts(config, TEXT, frames, 1, uses_expert=False)
    memory = [training_bytes(count.total, stage, WORKERS) / 1e9 for stage in STAGES]
    held = dataclasses.replace(
        document,
        positions=POSITIONS,
        noisy_frames=POSITIONS * document.noisy_frames // document.positions,
    )
    activations = [
        activation_bytes(config, held, recomputes_layers=recomputes) / 1e9
        for recomputes in (False, True)
    ]
    local = dataclasses.replace(config, head=dataclasses.replace(config.head, kind="local"))
    sampling = [
        forward_flops(kind, sampling_counts(kind, TEXT, frames)) for kind in (config, local)
    ]
    return [
        name,
        f"{count.total / 1e6:,.0f} M",
        f"{100 * count.expert / count.total:.0f} %",
        *(f"{size:.1f}" for size in memory),
        *(f"{size:.1f}" for size in activations),
        f"{rate * cached_bytes(config) / 1e3:.0f}",
        f"{training_flops(config, document) / duration_s / 1e12:.3f}",
        *(f"{flops / duration_s / 1e12:.4f}" for flops in sampling),
    ]


def sampling_counts(config: ModelConfig, num_text: int, num_frames: int) -> Counts:
    """Counts of generating with guidance; the null prefix is read once for all requests."""
    frames, steps = config.frames_per_block, SamplingOptions().num_flow_steps
    blocks = num_frames // frames
    # Passes of the backbone over each block, among them the one that writes it.
    passes = 1 + (steps if config.head.kind == "thin" else 1)
    total = Counts(positions=num_text, pairs=num_text * (num_text + 1) // 2)
    for prefix in (num_text, NULL_TEXT):
        keys = sum(prefix + frames * (block + 1) for block in range(blocks))
        total += Counts(
            positions=num_frames * passes,
            pairs=frames * keys * passes,
            noisy_frames=num_frames * steps,
        )
    return total


def cached_bytes(config: ModelConfig) -> int:
    """Keys and values of one frame in one row, bf16."""
    backbone = config.backbone
    return 2 * 2 * backbone.num_layers * backbone.num_kv_heads * backbone.head_dim


if __name__ == "__main__":
    main()
