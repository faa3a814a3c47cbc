"""Make an audio file from words or a description, in one process, without Ray."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.generate_options import add_options, request_from
from jobs.options import main_of, parser, run


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("generate", __doc__ or "", has_settings=False)
    add_options(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm generate`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: generate(options), options)


def generate(given: Namespace) -> None:
    """Load the bundle, make the audio, write the file, print the facts."""
    from pipeline.serving.offline import format_of, make_file, open_synthesizer

    if given.list_voices:
        _list_voices(given)
        return
    if given.out is None:
        raise ValueError("no file to write; name one by --out")
    format_of(given.out)  # before minutes of work
    synthesizer = open_synthesizer(given.bundle, given.device, given.precision)
    made = make_file(synthesizer, request_from(given, synthesizer.bundle), given.out)
    print(
        f"wrote {made.path}: {made.duration_s:.2f} s of audio in {made.elapsed_s:.2f} s, "
        f"real-time factor {made.real_time_factor:.2f}, first audio after {made.first_s:.2f} s"
    )
    if made.is_capped:
        print(
            "the speech reached its longest duration before the model ended it: words may be "
            "missing at its end; try another seed"
        )


def _list_voices(given: Namespace) -> None:
    from model.bundle.bundle import load_bundle

    voices = load_bundle(given.bundle).voices
    width = max(map(len, voices), default=0)
    for name, voice in sorted(voices.items()):
        print(f"{name:<{width}}  {voice.description}".rstrip())
    if not voices:
        print(f"{given.bundle} has no voices of its own; --voice takes a recording")


if __name__ == "__main__":
    main_of(main)
