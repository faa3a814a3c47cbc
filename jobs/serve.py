"""Stream audio over HTTP, with Ray Serve.

Starts a local Ray unless RAY_ADDRESS is set, and stops with Ctrl-C or SIGTERM. On a cluster,
`jobs.serve:build_app` is the import path of a Serve config; its args are the settings.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jobs.options import main_of, parser, run, settings_from
from jobs.recordings import recorded_voice, recorded_voices
from model.bundle import DEFAULT_BUNDLE
from model.bundle.shipped import SHIPPED, bundle_folder
from pipeline.cluster import ray_cluster
from pipeline.serving.settings import ServeSettings

APP_NAME = "audiocalm"


def build_app(args: dict[str, Any]) -> Any:
    """The application of a Serve config file; `args` are `ServeSettings`."""
    from pipeline.serving.replica import build

    settings = ServeSettings.model_validate(args)
    voices = recorded_voices(settings.voices, settings.speaker_encoder)
    return build(settings, voices, embedder(settings))


def embedder(settings: ServeSettings) -> Callable[[str], list[float]]:
    """Function that makes voices of the recordings that clients bring."""
    return partial(recorded_voice, encoder=settings.speaker_encoder)


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("serve", __doc__ or "")
    shipped = f"bundle to serve; default: {DEFAULT_BUNDLE}, which comes with the package"
    built.add_argument("--bundle", metavar="DIR", help=shipped)
    built.add_argument(
        "--voices", metavar="DIR", help="folder of recordings, one for each voice, named by file"
    )
    built.add_argument("--host", help="address to listen on; 0.0.0.0 for every interface")
    built.add_argument("--port", type=int, help="port to listen on")
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm serve`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: serve(options), options)


def serve(options: Namespace) -> None:
    """Check the bundle, then serve until interrupted."""
    flags = {name: getattr(options, name) for name in ("bundle", "voices", "host", "port")}
    settings = settings_from(ServeSettings, options, **flags)
    if settings.bundle in SHIPPED:
        bundle_folder(settings.bundle)  # before minutes of starting
    serve_until_stopped(settings)


def serve_until_stopped(settings: ServeSettings) -> None:
    """Deploy, say where, wait for SIGINT or SIGTERM, and take it all down again."""
    from pipeline.serving.local import deployed

    voices = recorded_voices(settings.voices, settings.speaker_encoder)
    with ray_cluster():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with deployed(settings, APP_NAME, voices, embedder(settings)) as url:
            print(f"serving {settings.bundle} at {url}  (Ctrl-C stops)\n{curl_example(url)}")
            sys.stdout.flush()
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
            print("stopping ...")


def curl_example(url: str) -> str:
    """A command that makes audio with the endpoint."""
    return (
        f"curl -sS {url}/v1/audio/generations -H 'Content-Type: application/json' "
        '-d \'{"description": "A dog barks twice.", "seconds": 3}\' -o dog.wav'
    )


if __name__ == "__main__":
    main_of(main)
