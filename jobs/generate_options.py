"""Options of `audiocalm generate`, and the request that they make."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from model.bundle import DEFAULT_BUNDLE
from model.config import MODALITIES

if TYPE_CHECKING:
    from torch import Tensor

    from model.bundle.bundle import Bundle
    from model.bundle.request import SynthesisRequest


def add_options(options: ArgumentParser) -> None:
    """Add all options; their values are checked in `request_from`."""
    add = options.add_argument
    text = "words to speak; with --transcript, or --modality sound or music, the description"
    add("text", nargs="?", metavar="TEXT", help=text)
    shipped = f"trained bundle; default: {DEFAULT_BUNDLE}, which comes with the package"
    add("--bundle", default=DEFAULT_BUNDLE, metavar="DIR", help=shipped)
    add("--description", help="description of the audio: the scene, the style, the voice")
    add("--transcript", help="words to speak or sing, verbatim")
    file = "text file (UTF-8) with the words to speak, of any length up to 100,000 characters; "
    add("--transcript-file", metavar="FILE", help=file + "- reads standard input")
    add("--modality", choices=MODALITIES, help="default: speech with a transcript, else sound")
    add("--language", help="language of the words, as a BCP 47 tag")
    add("--singing", action="store_true", help="the words are sung")
    add(
        "--voice",
        metavar="NAME|WAV",
        help="voice of the bundle, or a recording to imitate; words alone take the bundle's",
    )
    continued = "recording that the speech continues, in its voice; needs --continue-transcript"
    add("--continue", dest="continued", metavar="WAV", help=continued)
    transcript = "words of the recording of --continue, verbatim"
    add("--continue-transcript", metavar="TEXT", help=transcript)
    encoder = (
        "folder of the speaker encoder that encoded the training data; default: the built-in one"
    )
    add("--speaker-encoder", metavar="DIR", help=encoder)
    add("--seconds", type=float, metavar="S", help="exact duration of the audio")
    speed = "speaking rate, 0.25 to 4; default: 1"
    add("--speed", type=float, default=1.0, metavar="X", help=speed)
    steps = "solver steps for each block; default: those of the bundle"
    add("--flow-steps", type=int, metavar="N", help=steps)
    guidance = "scale of classifier-free guidance; default: that of the bundle"
    add("--guidance", type=float, metavar="G", help=guidance)
    temperature = "variance of the initial noise; default: that of the bundle"
    add("--temperature", type=float, metavar="T", help=temperature)
    seed = "seed of the noise: the same seed gives the same audio; default: 0"
    add("--seed", type=int, default=0, metavar="N", help=seed)
    device = "device of the model; default: auto, a GPU if there is one"
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help=device)
    precision = "type of the weights; default: auto, bf16 on a GPU and fp32 on a CPU"
    add("--precision", default="auto", choices=("auto", "fp32", "bf16"), help=precision)
    add(
        "--out",
        "-o",
        type=Path,
        metavar="FILE",
        help="file to write: .wav, .flac, .mp3, .opus, .ogg or .aac",
    )
    add("--list-voices", action="store_true", help="list the voices of the bundle and exit")


def request_from(given: Namespace, bundle: Bundle) -> SynthesisRequest:
    """The request that parsed options make of a bundle.

    Raises:
        ValueError: If they name the words or the description twice, or neither.
        VoiceError: If a recording holds no voice that can be used.
    """
    from model.bundle.limits import DEFAULT_SPEECH_DESCRIPTION
    from model.bundle.request import SynthesisRequest
    from model.bundle.voices import spoken_as

    if (given.continued is None) != (given.continue_transcript is None):
        raise ValueError("--continue and --continue-transcript go together; give both or neither")
    voice, continues = given.voice, None
    if given.continued is not None:
        from jobs.recordings import recorded_prompt

        continues = recorded_prompt(given.continued, given.continue_transcript, bundle)
        if voice is None and bundle.model.config.speaker_id is not None:
            voice = given.continued
    description, transcript = _texts(given)
    if description is None and transcript is not None and not given.singing:
        voice, description = spoken_as(
            voice,
            description,
            bundle.voices,
            default_voice=bundle.default_voice if continues is None else None,
            default_description=DEFAULT_SPEECH_DESCRIPTION,
        )
    if description is None:
        raise ValueError(
            "nothing to make: give the words to speak as TEXT, or what it sounds like by "
            "--description"
        )
    return SynthesisRequest(
        description=description,
        transcript=transcript,
        language=given.language,
        modality=given.modality,
        duration_s=given.seconds,
        voice=None if voice is None else _voice(bundle, voice, given.speaker_encoder),
        continues=continues,
        speed=given.speed,
        seed=given.seed,
        is_singing=given.singing,
        sampling={
            "num_flow_steps": given.flow_steps,
            "guidance_scale": given.guidance,
            "temperature": given.temperature,
        },
    )


def _voice(bundle: Bundle, voice: str, encoder: str | None) -> Tensor:
    """Speaker embedding of a voice of the bundle, or of a recording."""
    if voice in bundle.voices:
        return bundle.voices[voice].embedding
    # Recordings need SciPy and audio decoders, a quarter of a second of imports.
    from jobs.recordings import bundle_voice

    return bundle_voice(bundle, voice, encoder)


def _texts(given: Namespace) -> tuple[str | None, str | None]:
    """Description and words, as far as they are given."""
    description, transcript = given.description, given.transcript
    if given.transcript_file is not None:
        if transcript is not None:
            raise ValueError("--transcript and --transcript-file both give the words; give one")
        transcript = _read_text(given.transcript_file)
    if given.text is not None:
        is_described = given.modality in ("sound", "music") and not given.singing
        if transcript is None and not is_described:
            transcript = given.text
        elif description is None:
            description = given.text
        else:
            raise ValueError(
                f"TEXT {given.text!r} and --description {description!r} both describe; give one"
            )
    return description, transcript


def _read_text(path: str) -> str:
    """The text of a file, or of standard input; of a text that is too long only so much as shows
    that it is."""
    from model.bundle.limits import MAX_TEXT_CHARS

    try:
        is_input = path == "-"
        with open(0 if is_input else path, encoding="utf-8", closefd=not is_input) as file:
            return file.read(MAX_TEXT_CHARS + 1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error}; convert it") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
