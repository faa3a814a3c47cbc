"""A training plan as text, with the assumptions that it rests on."""

from __future__ import annotations

from pipeline.training.hardware import Hardware
from pipeline.training.plan import MemoryOption, TrainPlan


def plan_report(plan: TrainPlan) -> str:
    """The plan as lines for a terminal."""
    rows = {
        "parameters": _parameters(plan),
        "micro-batch": _micro_batch(plan),
        "step": _step(plan),
        "step time": _step_time(plan),
        "run": _run(plan),
        "checkpoint": _checkpoint(plan),
        "host memory": _host_memory(plan),
        "nodes": f"{plan.hardware.num_nodes} with {plan.hardware.gpus_per_node} GPUs each",
        "cost": _cost(plan.price, plan.hardware),
    }
    lines = [f"{name:<12} {text}" for name, text in rows.items()]
    lines += ["", *_memory_table(plan), "", "Assumptions"]
    return "\n".join(lines + [f"- {text}" for text in _assumptions(plan)])


def _parameters(plan: TrainPlan) -> str:
    count, lora = plan.sizes, plan.settings.model.lora
    trained = f"{plan.num_trained / 1e6:,.1f} M"
    return (
        f"{count.total / 1e6:,.0f} M: embedding {count.embedding / 1e6:,.0f}, backbone "
        f"{count.backbone / 1e6:,.0f}, expert {count.expert / 1e6:,.0f}, flow head "
        f"{count.head / 1e6:,.0f}, other {count.other / 1e6:,.0f}"
        + ("" if lora is None else f"; adapters of rank {lora.rank}, {trained}, are trained")
    )


def _micro_batch(plan: TrainPlan) -> str:
    feed = plan.settings.feed
    return (
        f"{feed.rows_per_micro_batch} row(s) of {feed.pack_length:,} positions per GPU, "
        f"{plan.micro_batches} micro-batch(es) per step"
    )


def _step(plan: TrainPlan) -> str:
    return (
        f"{plan.settings.feed.documents_per_step:,} documents, {plan.positions_per_step:,} tokens, "
        f"{plan.audio_s_per_step / 3600:.2f} h of audio, rows {plan.useful_share:.0%} full"
    )


def _step_time(plan: TrainPlan) -> str:
    return (
        f"{plan.step_s:.3g} s: {plan.flops_per_step / 1e12:,.0f} TFLOP at {plan.utilisation:.0%} "
        f"MFU of {plan.hardware.num_gpus} x {plan.hardware.peak_flops / 1e12:,.0f} TFLOP/s"
    )


def _run(plan: TrainPlan) -> str:
    hours = plan.num_steps * plan.audio_s_per_step / 3600
    return (
        f"{plan.num_steps:,} steps, {hours:,.0f} h of audio heard, "
        f"{plan.duration_s / 86_400:.2f} days, "
        f"{plan.hardware.num_gpus * plan.duration_s / 3600:,.0f} GPU hours"
    )


def _checkpoint(plan: TrainPlan) -> str:
    on_disk = plan.num_checkpoints * plan.checkpoint_bytes
    return (
        f"{_gb(plan.checkpoint_bytes)} each, {_gb(on_disk)} for the {plan.num_checkpoints} that "
        "are on disk at once"
    )


def _host_memory(plan: TrainPlan) -> str:
    copy, hardware = plan.checkpoint_copy_bytes, plan.hardware
    workers = min(hardware.gpus_per_node, hardware.num_gpus)
    return (
        f"{_gb(workers * copy)} per node, beside its processes: a checkpoint is written from a "
        f"copy of the states, {_gb(copy)} of each worker"
    )


def _memory_table(plan: TrainPlan) -> list[str]:
    hardware = plan.hardware
    lines = [
        f"Memory of one GPU, GB; {hardware.usable_bytes / 1e9:.1f} of "
        f"{hardware.memory_bytes / 1e9:.1f} are usable",
        "ZeRO  recompute  states  activations   total  fits  rows that fit",
    ]
    for option in plan.options:
        lines.append(
            f"{option.zero_stage:>4}  {_yes(option.recomputes_layers):>9}  "
            f"{option.state_bytes / 1e9:>6.1f}  {option.activation_bytes / 1e9:>11.1f}  "
            f"{option.total_bytes / 1e9:>6.1f}  {_yes(option.fits):>4}  "
            f"{option.largest_micro_batch:>13}" + "  <- recipe" * (option == plan.chosen)
        )
    return [*lines, _verdict(plan)]


def _verdict(plan: TrainPlan) -> str:
    best = plan.suggested
    if best is None:
        return (
            "Nothing fits: use more GPUs or GPUs with more memory, lower feed.pack_length or "
            "feed.rows_per_micro_batch, or choose a smaller model."
        )
    if plan.chosen.fits:
        said = "The recipe fits."
        if best != plan.chosen:
            said += f" So does {_named(best)}, which costs less communication or recomputation."
        return said
    return f"The recipe does not fit. {_named(best)} does."


def _named(option: MemoryOption) -> str:
    recompute = str(option.recomputes_layers).lower()
    return f"engine.zero_stage={option.zero_stage} with engine.recompute_layers={recompute}"


def _assumptions(plan: TrainPlan) -> list[str]:
    clip, copies = plan.clip, plan.settings.feed.num_noisy_copies
    said = [
        f"every clip has {clip.duration_s:g} s of audio at {clip.frame_rate:.2f} frames/s and "
        f"{clip.num_text} tokens of text; {clip.speech_share:.0%} of the clips are speech. One "
        f"takes {plan.document.num_positions:,} positions with {copies} noisy cop"
        f"{'y' if copies == 1 else 'ies'}; {plan.documents_per_row} fit a row",
        "MFU counts useful operations (no padding, no masked pairs, no recomputed layers), as "
        "rate/mfu of a run does; partly filled rows and recomputation lower it",
        "time excludes checkpoints, samples, validation and restarts",
        "bf16 weights and gradients; float32 master weights, two moments and weight average; "
        "activations are those of uncompiled layers, all rows full of speech",
        f"{plan.hardware.reserved_share:.0%} of the memory is left for the CUDA context, "
        "communication buffers and fragmentation",
    ]
    if plan.settings.model.lora is not None:
        said.append(
            "time counts the gradients of all weights; those below adapters need none, so it is at "
            "most that. The run keeps one copy of these weights beside its checkpoints"
        )
    if plan.document.is_cropped:
        said.insert(
            1,
            f"clips are longer than a row and cropped to {plan.document.duration_s:.1f} s; raise "
            "feed.pack_length to hear all of them",
        )
    return said


def _cost(price: float | None, hardware: Hardware) -> str:
    if price is None:
        return "unknown; give --price per GPU hour"
    return f"{price:,.0f} at {hardware.price_per_hour:g} per GPU hour"


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:,.1f} GB"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
