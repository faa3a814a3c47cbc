"""Check this machine: packages, accelerator, Ray, the shipped bundle and the speech programs."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from model.bundle import DEFAULT_BUNDLE
from model.bundle.shipped import has_bundle

REQUIRED = ("torch", "torchaudio", "ray", "deepspeed", "mlflow", "pyarrow")
OPTIONAL = {
    "pocketsphinx": "spoken digits in evaluate: install the extra `eval`",
    "jiwer": "word error rate in evaluate: install the extra `eval`",
    "faster_whisper": "evaluate --asr: install the extra `eval`",
    "num2words": "word error rate in evaluate: install the extra `eval`",
    "transformers": "Qwen tokenizer and weights parity: install the extra `hf`",
}
_LITTLE_DISK_GIB = 10


class Finding(NamedTuple):
    """Result of one check.

    Attributes:
        state: `ok`, `note` for what may be missing, `missing` for what a job will fail without.
        subject: What was checked.
        detail: What was found, and the remedy.
    """

    state: Literal["ok", "note", "missing"]
    subject: str
    detail: str


def check_machine() -> Iterator[Finding]:
    """Check the machine and the environment, cheapest first; starts no Ray."""
    is_new = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} on {platform.platform()}"
    yield Finding("ok" if is_new else "missing", "python", found)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding("ok", "machine", f"{os.cpu_count()} cores, {memory_gib:.0f} GiB")
    free_gib = shutil.disk_usage(".").free / 2**30
    state: Literal["ok", "note"] = "ok" if free_gib > _LITTLE_DISK_GIB else "note"
    yield Finding(state, "disk", f"{free_gib:.0f} GiB free here")
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
