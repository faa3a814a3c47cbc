"""`audiocalm <command>`: the list of jobs, each also `python -m jobs.<module>`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from jobs.options import EXIT_USAGE

COMMANDS: dict[str, str] = {
    "starter-corpus": "make a licence-free corpus of speech, sound and music",
    "ingest": "corpora -> clips/: read layouts, decode, check, reject with reasons",
    "encode": "clips/ -> latents/: codec posteriors, speaker embeddings, measured attributes",
    "describe": "clips/ + attributes -> descriptions/: several description-style texts a clip",
    "shard": "latents/ + descriptions/ -> train-shards/ with an index",
    "prepare": "ingest, encode, describe and shard in a row",
    "data-report": "a prepared directory as one HTML page, with rejects to listen to",
    "train-codec": "train an audio codec on ingested clips",
    "import-codec": "published codec of diffusers or transformers -> codec folder",
    "train": "train the model on train-shards",
    "distill": "a finished run -> a student of one or two flow steps without guidance",
    "export": "checkpoint -> bundle of safetensors",
    "generate": "description -> audio file, without any Ray",
    "serve": "streaming HTTP endpoint on Ray Serve",
    "evaluate": "measure a bundle and write a report",
    "demo": "the whole road, small, from nothing to samples and a report",
    "doctor": "what is installed, which accelerator, which Ray, what is missing",
}
"""Command to summary; the module is the command with underscores."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else EXIT_USAGE
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"error: no command {command!r}{hint}\n\n{usage()}", file=sys.stderr)
        return EXIT_USAGE
    job = importlib.import_module(f"jobs.{command.replace('-', '_')}")
    code: int = job.main(rest)
    return code


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: audiocalm <command> [options]   (audiocalm <command> --help)\n\n{rows}"


if __name__ == "__main__":
    sys.exit(main())
