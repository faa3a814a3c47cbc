"""Say what is installed, which accelerator and which Ray there is, and what is missing.

With --address the same is asked of a cluster: from every kind of node whether the versions agree,
--storage can be read and written, --tracking answers, and torch can use the GPU that Ray offers.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs import options
from model.bundle import DEFAULT_BUNDLE
from model.bundle.shipped import has_bundle

REQUIRED = ("torch", "torchaudio", "ray", "deepspeed", "mlflow", "pyarrow", "webdataset")
OPTIONAL = {
    "pocketsphinx": "spoken digits in evaluate: install the extra `eval`",
    "jiwer": "word error rate in evaluate: install the extra `eval`",
    "faster_whisper": "evaluate --asr: install the extra `eval`",
    "num2words": "word error rate in evaluate: install the extra `eval`",
    "transformers": "Qwen tokenizer and weights parity: install the extra `hf`",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report: `state` is ok, note or missing."""

    state: str
    subject: str
    detail: str


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    built = options.parser("doctor", __doc__ or "", has_settings=False)
    options.add_address(built)
    storage = "folder that every node must read and write"
    built.add_argument("--storage", metavar="DIR", help=storage)
    built.add_argument("--tracking", metavar="URL", help="MLflow server that nodes must reach")
    built.add_argument("--on-cluster", action="store_true", help=argparse.SUPPRESS)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; the exit code is 1 if something necessary is missing."""
    parsed = build_parser().parse_args(argv)
    body = examine_here
    if parsed.on_cluster:
        body = examine_nodes
    elif parsed.address or parsed.storage or parsed.tracking:
        body = examine_cluster
    return options.run(lambda: body(parsed), parsed)


def examine_here(parsed: argparse.Namespace) -> int:
    """Print the findings of this machine; returns the exit code."""
    findings = list(examine())
    code = print_findings(findings)
    print(f"\n{verdict(findings)}")
    return code


def examine_cluster(parsed: argparse.Namespace) -> int:
    """Have the cluster examine its nodes, by a job, and print what it finds."""
    from jobs.submit_words import Submission
    from pipeline.submission.client import connect, exit_code
    from pipeline.submission.follow import follow

    given = {"--storage": parsed.storage, "--tracking": parsed.tracking}
    words = [word for name, value in given.items() if value for word in (name, value)]
    server = connect(parsed.address)
    job_id = Submission.of("doctor", ["--on-cluster", *words]).send(server, 3)
    log: list[str] = []
    job = follow(server, job_id, log.append)
    findings = [line for line in log if line.startswith(("ok ", "note ", "missing "))]
    print("\n".join(findings or log))
    return exit_code(job)


def examine_nodes(parsed: argparse.Namespace) -> int:
    """Print the findings of every kind of node of the connected cluster."""
    from pipeline.cluster import ray_cluster
    from pipeline.node_check import check_nodes

    with ray_cluster():
        found = check_nodes(parsed.storage, parsed.tracking)
    return print_findings([Finding(*one) for one in found])


def print_findings(findings: Sequence[Finding]) -> int:
    """Print a line for each finding; returns 1 if something necessary is missing."""
    for finding in findings:
        print(f"{finding.state:<8} {finding.subject:<14} {finding.detail}")
    return int(any(finding.state == "missing" for finding in findings))


def examine() -> Iterator[Finding]:
    """Look at the machine and the environment, cheapest first; starts no Ray."""
    state = "ok" if sys.version_info >= (3, 11) else "missing"
    yield Finding(state, "python", f"{platform.python_version()} on {platform.platform()}")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding("ok", "machine", f"{os.cpu_count()} cores, {memory_gib:.0f} GiB")
    free_gib = shutil.disk_usage(".").free / 2**30
    yield Finding("ok" if free_gib > 10 else "note", "disk", f"{free_gib:.0f} GiB free here")
    yield from _packages()
    yield from _accelerator()
    yield _ray()
    yield _shipped_bundle()
    yield _speech_library()
    yield _speech_program()


def verdict(findings: Sequence[Finding]) -> str:
    """What this machine can do, in one sentence."""
    missing = [finding.subject for finding in findings if finding.state == "missing"]
    if missing:
        return f"This machine is not ready: {', '.join(missing)} must be installed first."
    has_gpu = any(f.state == "ok" for f in findings if f.subject == "accelerator")
    has_model = any(f.state == "ok" for f in findings if f.subject == "bundle")
    audio = "make audio" if has_model else "make audio with a bundle that `audiocalm export` writes"
    train = (
        "train with every recipe that fits its GPU memory"
        if has_gpu
        else "train with the recipes for a CPU (the *_gpu.yaml recipes need a CUDA device)"
    )
    return f"This machine can prepare data, {train}, and {audio}."


def _packages() -> Iterator[Finding]:
    for name in REQUIRED:
        if importlib.util.find_spec(name) is None:
            yield Finding("missing", name, "not installed; run `make setup`")
        else:
            yield Finding("ok", name, importlib.metadata.version(name))
    for name, use in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            yield Finding("note", name, f"not installed; {use}")
        else:
            yield Finding("ok", name, importlib.metadata.version(name))


def _accelerator() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if not torch.cuda.is_available():
        yield Finding("note", "accelerator", "no CUDA device; CPU recipes (fp32) will be used")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding("ok", "accelerator", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")


def _ray() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        return Finding("ok", "ray cluster", f"jobs connect to RAY_ADDRESS={address}")
    return Finding("ok", "ray cluster", "RAY_ADDRESS is not set; jobs start a local Ray")


def _shipped_bundle() -> Finding:
    if has_bundle(DEFAULT_BUNDLE):
        return Finding("ok", "bundle", f"{DEFAULT_BUNDLE} comes with this package")
    lacking = f"this package comes without {DEFAULT_BUNDLE}; name one by --bundle"
    return Finding("note", "bundle", lacking)


def _speech_library() -> Finding:
    try:
        import espeakng_loader

        ctypes.CDLL(espeakng_loader.get_library_path())
    except (ImportError, OSError) as error:
        return Finding("missing", "espeak-ng", f"{error}; needed by starter-corpus only")
    return Finding("ok", "espeak-ng", "bundled library loads")


def _speech_program() -> Finding:
    found = shutil.which("flite")
    if found is None:
        use = "the second voice engine of starter-corpus: apt-get install flite"
        return Finding("note", "flite", f"not installed; {use}")
    return Finding("ok", "flite", found)


if __name__ == "__main__":
    options.main_of(main)
