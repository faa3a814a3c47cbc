"""`audiocalm generate`: description -> audio file, in this process, without Ray."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from jobs.options import main_of, parser, run
from model.config import MODALITIES


def main(argv: Sequence[str] | None = None) -> int:
    """Make one WAV file."""
    options = parser("generate", __doc__ or "", has_settings=False)
    _add_options(options)
    given = options.parse_args(argv)
    return run(lambda: generate(given), given)


def _add_options(options: ArgumentParser) -> None:
    add = options.add_argument
    add("--bundle", required=True, metavar="DIR", help="trained bundle")
    add("--description", required=True, help="what it sounds like")
    add("--transcript", help="words to speak or sing, verbatim")
    add("--modality", choices=MODALITIES, help="default: speech with a transcript, else sound")
    add("--language", help="BCP 47 tag of the transcript")
    add("--singing", action="store_true", help="the transcript is sung")
    add("--voice", metavar="NAME|WAV", help="voice of the bundle, or a recording to imitate")
    add("--speaker-encoder", metavar="DIR", help="as in the data's `encode.speaker_encoder`")
    add("--seconds", type=float, metavar="S", help="exact duration")
    add("--flow-steps", type=int, metavar="N", help="solver steps a block; default: the bundle's")
    add(
        "--guidance",
        type=float,
        metavar="G",
        help="how closely to follow the description; likewise",
    )
    add("--temperature", type=float, metavar="T", help="variance of the initial noise; likewise")
    add("--seed", type=int, default=0, metavar="N", help="same seed, same audio (default 0)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    precision = "default auto: bf16 on a GPU, fp32 on a CPU"
    add("--precision", default="auto", choices=("auto", "fp32", "bf16"), help=precision)
    add("--out", required=True, type=Path, metavar="WAV", help="file to write")


def generate(given: Namespace) -> None:
    """Load the bundle, make the audio, write the file, print the facts."""
    from jobs.recordings import recorded_voice
    from model.bundle.request import SynthesisRequest
    from pipeline.serving.offline import check_name, make_file, open_synthesizer, voice_of

    def embed(path: str) -> list[float]:
        return recorded_voice(path, given.speaker_encoder)

    check_name(given.out)  # before minutes of work
    synthesizer = open_synthesizer(given.bundle, given.device, given.precision)
    request = SynthesisRequest(
        description=given.description,
        transcript=given.transcript,
        language=given.language,
        modality=given.modality,
        duration_s=given.seconds,
        voice=voice_of(synthesizer.bundle, given.voice, embed) if given.voice else None,
        seed=given.seed,
        is_singing=given.singing,
        sampling={
            "num_flow_steps": given.flow_steps,
            "guidance_scale": given.guidance,
            "temperature": given.temperature,
        },
    )
    made = make_file(synthesizer, request, given.out)
    print(
        f"wrote {made.path}: {made.duration_s:.2f} s of audio in {made.elapsed_s:.2f} s, "
        f"real-time factor {made.real_time_factor:.2f}, first audio after {made.first_s:.2f} s"
    )
    if made.is_capped:
        print(
            "the speech reached its longest duration before the model ended it: words may be "
            "missing at its end; try another seed"
        )


if __name__ == "__main__":
    main_of(main)
