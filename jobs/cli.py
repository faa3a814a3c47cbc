"""`audiocalm <command>`: the list of jobs, each also `python -m jobs.<module>`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from jobs.options import EXIT_USAGE

GROUPS: dict[str, dict[str, str]] = {
    "data": {
        "starter-corpus": "make a licence-free corpus of speech, sound and music",
        "prepare": "turn corpora into train-shards: the four stages below in a row",
        "ingest": "read corpora, decode and check every clip, write clips/",
        "encode": "encode clips/ to latents/, with speaker embeddings and attributes",
        "describe": "write several descriptions of every clip to descriptions/",
        "shard": "join latents/ and descriptions/ to train-shards/",
        "data-report": "show a prepared directory as one HTML page with audio",
    },
    "model": {
        "train-codec": "train an audio codec on clips/",
        "import-codec": "convert a published codec of diffusers or transformers",
        "plan": "estimate memory, time and cost of a training or an encoding",
        "train": "train the model on train-shards/",
        "distill": "train a student that samples in one or two flow steps",
        "export": "write a checkpoint as a bundle that generates and serves",
    },
    "use": {
        "generate": "make an audio file from words or a description",
        "serve": "stream audio over HTTP, with Ray Serve",
    },
    "cluster": {
        "submit": "run a command on a Ray cluster and follow it",
        "list": "list the jobs of a cluster",
        "status": "show how far a job is; --follow attaches to it again",
        "logs": "print the log of a job",
        "stop": "stop a job; a training saves a checkpoint first",
    },
    "check": {
        "evaluate": "measure a bundle or a codec and write a report",
        "study": "train several arms with several seeds and compare their held-out losses",
        "demo": "run every stage at a small size, from corpus to report",
        "doctor": "say what is installed and what is missing, here or on a cluster",
        "settings": "print the settings of a command with their meaning",
        "completion": "print the shell completion for bash, zsh or tcsh",
    },
}
"""Summary of every command, by group; the module is the command with underscores."""
COMMANDS: dict[str, str] = {name: text for group in GROUPS.values() for name, text in group.items()}


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
    job = importlib.import_module(module_of(command))
    code: int = job.main(rest)
    return code


def module_of(command: str) -> str:
    """Module of a command; it has `main` and `build_parser`."""
    return f"jobs.{command.replace('-', '_')}"


def usage() -> str:
    """The list of commands, by group."""
    width = max(map(len, COMMANDS))
    lines = ["usage: audiocalm <command> [options]   (audiocalm <command> --help)"]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<{width}}  {text}" for name, text in commands.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
