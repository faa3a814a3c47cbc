"""Estimate a training or an encoding before it starts: memory, time, disk space and cost.

`plan train` reads a training recipe, `plan encode` only its options. Nothing is started and nothing
is written. The report ends with the assumptions that it rests on.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import main_of, parser, run, settings_from


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("plan", __doc__ or "")
    add = built.add_argument
    add("stage", nargs="?", choices=("train", "encode"), default="train", help="default: train")
    add(
        "--gpus",
        required=True,
        type=int,
        metavar="N",
        help="number of GPUs; of workers in plan encode",
    )
    add("--gpu", metavar="NAME", help="kind of GPU, such as h100; gives its memory and peak")
    add("--gpu-memory", type=float, metavar="GB", help="memory of one GPU, 10^9 bytes")
    add("--gpu-tflops", type=float, metavar="T", help="dense bf16 peak of one GPU, TFLOP/s")
    add("--gpus-per-node", type=int, default=8, metavar="N", help="GPUs of one machine; default: 8")
    reserve = "share of the memory left free for buffers; default: 0.1"
    add("--memory-reserve", type=float, default=0.1, metavar="SHARE", help=reserve)
    add("--mfu", type=float, metavar="SHARE", help="utilisation (MFU), as rate/mfu of a run")
    add("--price", type=float, metavar="PRICE", help="price of one GPU for one hour")
    add(
        "--clip-seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="duration of a clip; default: 10",
    )
    add(
        "--text-tokens",
        type=int,
        default=80,
        metavar="N",
        help="tokens of a clip's text; default: 80",
    )
    speech = "share of the clips that are speech; default: 0.5"
    add("--speech-share", type=float, default=0.5, metavar="SHARE", help=speech)
    add("--codec", default="paper", metavar="NAME|DIR", help="preset or codec; default: paper")
    add("--hours", type=float, metavar="H", help="plan encode: hours of audio")
    factor = "plan encode: seconds that one worker takes for a second of audio"
    add("--real-time-factor", type=float, metavar="X", help=factor)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm plan`; returns the exit code."""
    options = build_parser().parse_args(argv)
    body = plan_encode if options.stage == "encode" else plan_train
    return run(lambda: body(options), options)


def plan_train(options: Namespace) -> None:
    """Print the plan of a training recipe."""
    from model.codec.registry import codec_shape
    from pipeline.training.hardware import Hardware
    from pipeline.training.plan import TypicalClip, plan_training, planned_config
    from pipeline.training.plan_report import plan_report
    from pipeline.training.settings import TrainSettings

    settings = settings_from(TrainSettings, options)
    if options.mfu is None:
        raise ValueError("give --mfu, the share of the peak that the training reaches, such as 0.4")
    hardware = Hardware.of(
        options.gpu,
        memory_gb=options.gpu_memory,
        peak_tflops=options.gpu_tflops,
        num_gpus=options.gpus,
        gpus_per_node=options.gpus_per_node,
        reserved_share=options.memory_reserve,
        price_per_hour=options.price,
    )
    timebase, latent_dim = codec_shape(options.codec)
    clip = TypicalClip(
        options.clip_seconds, options.text_tokens, timebase.frame_rate, options.speech_share
    )
    config = planned_config(settings.model, latent_dim)
    print(plan_report(plan_training(settings, config, hardware, clip, options.mfu)))


def plan_encode(options: Namespace) -> None:
    """Print the plan of encoding a corpus."""
    from model.codec.registry import codec_shape
    from pipeline.data.encode_plan import encode_report, plan_encoding

    if options.hours is None or options.real_time_factor is None:
        raise ValueError(
            "plan encode needs --hours of audio and the --real-time-factor of a worker"
        )
    timebase, latent_dim = codec_shape(options.codec)
    plan = plan_encoding(
        options.hours, options.gpus, options.real_time_factor, timebase.frame_rate, latent_dim
    )
    print(encode_report(plan, options.gpus, options.price))


if __name__ == "__main__":
    main_of(main)
