"""`python -m tests.bench.plan`: parameters, memory and operations of the presets, in two tables."""

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


MEMORY = ["preset", "parameters", "expert", *(f"ZeRO-{stage}" for stage in STAGES)]
MEMORY += ["activations", "layers recomputed"]
SECOND = ["preset", "KV cache, kB", "training, TFLOP", "thin head, TFLOP", "local head, TFLOP"]


def main() -> None:
    """Print both tables."""
    print("GB of one worker:\n")
    print_table(MEMORY, [memory_cells(name, config) for name, config in PRESETS.items()])
    print("\nFor one second of audio:\n")
    print_table(SECOND, [second_cells(name, config) for name, config in PRESETS.items()])


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table as Markdown."""
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def typical_clip(name: str, config: ModelConfig) -> tuple[int, float]:
    """Frames of a clip in whole blocks, and the frame rate of the preset's codec."""
    rate = codec_shape("tiny" if name == "tiny" else "paper")[0].frame_rate
    return round(SECONDS * rate) // config.frames_per_block * config.frames_per_block, rate


def memory_cells(name: str, config: ModelConfig) -> list[str]:
    """Parameters of a preset, and its memory in training."""
    count, (frames, _) = sizes(config), typical_clip(name, config)
    document = document_counts(config, TEXT, frames, 1, uses_expert=False)
    memory = [training_bytes(count.total, stage, WORKERS) for stage in STAGES]
    held = dataclasses.replace(
        document,
        positions=POSITIONS,
        noisy_frames=POSITIONS * document.noisy_frames // document.positions,
    )
    memory += [
        activation_bytes(config, held, recomputes_layers=recomputes) for recomputes in (False, True)
    ]
    return [
        name,
        f"{count.total / 1e6:,.0f} M",
        f"{100 * count.expert / count.total:.0f} %",
        *(f"{size / 1e9:.1f}" for size in memory),
    ]


def second_cells(name: str, config: ModelConfig) -> list[str]:
    """Cache and operations of a preset for a second of audio."""
    frames, rate = typical_clip(name, config)
    duration_s = frames / rate
    document = document_counts(config, TEXT, frames, 1, uses_expert=False)
    local = dataclasses.replace(config, head=dataclasses.replace(config.head, kind="local"))
    sampling = [
        forward_flops(kind, sampling_counts(kind, TEXT, frames)) for kind in (config, local)
    ]
    return [
        name,
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
