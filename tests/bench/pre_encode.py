"""Encoding beside `pre_encode.py` of stable-audio-tools: the same clips, codec and process.

    git clone https://github.com/Stability-AI/stable-audio-tools CHECKOUT
    pip install --no-deps --target PACKAGES pytorch_lightning lightning-utilities torchmetrics
    python -m tests.bench.pre_encode --checkout CHECKOUT --packages PACKAGES --clips 500

Its data set and Lightning module run as they are, on a CPU, with this project's codec in place of
its own and libsndfile in place of torchcodec. It decodes, resamples, pads every clip to the longest
and writes one array and one JSON file a clip; it neither checks nor measures.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import soundfile
import torch
import torchaudio
from torch import Tensor

from model.codec.protocol import AudioCodec
from model.codec.registry import load_codec
from pipeline.data.encode import EncodeResources, EncodeSettings, encode
from pipeline.data.ingest import IngestSettings, ingest
from pipeline.data.units.stage import Resources
from pipeline.storage import Folder
from tests.bench.__main__ import hardware
from tests.bench.corpora import write_short_clips
from tests.bench.processes import timed
from tests.factories.clips import write_codec

LONGEST_S = 3.0
BATCH_CLIPS = 16
NUM_LOADERS = 2


class Autoencoder(torch.nn.Module):
    """A codec of this project with the interface of stable-audio-tools."""

    def __init__(self, codec: AudioCodec) -> None:
        super().__init__()
        self._codec = codec

    def encode(self, audio: Tensor) -> Tensor:
        """Posterior means of a batch of waveforms, `batch latent_dim frames`."""
        return self._codec.encode(audio).mean.transpose(1, 2)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pre_encode", description=__doc__)
    parser.add_argument("--checkout", required=True, metavar="DIR", help="stable-audio-tools")
    parser.add_argument("--packages", metavar="DIR", help="where pytorch_lightning is installed")
    parser.add_argument("--clips", type=int, default=500, help="clips of 1 to 3 s (default 500)")
    options = parser.parse_args()
    sys.path[:0] = [place for place in (options.packages, options.checkout) if place]
    torch.set_num_threads(1)
    print(f"{hardware()}; torch {torch.__version__}; {datetime.date.today().isoformat()}")
    print(f"command: python -m tests.bench.pre_encode --clips {options.clips}")
    with tempfile.TemporaryDirectory(prefix="bench-pre-encode-") as root:
        for line in lines(Path(root), options.clips):
            print(line, flush=True)


def lines(root: Path, num_clips: int) -> list[str]:
    """Rows of a markdown table: who, CPU time, wall time, and CPU time against theirs."""
    corpus, codec = write_short_clips(root / "sound", num_clips), write_codec(root / "codec")
    clips = Folder.at(root / "clips")
    here = Resources(workers=0)
    settings = IngestSettings(inputs=(str(corpus),), max_reject_share=1.0, resources=here)
    checks_s = timed(lambda: ingest(settings, clips))

    def ours(*, measures: bool) -> tuple[float, float]:
        given = {"measures_attributes": measures, "resources": EncodeResources(workers=0)}
        output = Folder.at(root / f"latents-{measures}")
        return timed(lambda: encode(clips, output, EncodeSettings.model_validate(given), codec))

    bare_s, whole_s = ours(measures=False), ours(measures=True)
    for module in ("pytorch_lightning", "pre_encode"):  # no part of what is timed
        importlib.import_module(module)
    theirs_s = timed(lambda: pre_encode(corpus, load_codec(codec), root / "theirs"))
    num_theirs = len(list((root / "theirs").rglob("*.npy")))
    rows = [
        ("`encode` without measurements", num_clips, bare_s),
        ("`encode`", num_clips, whole_s),
        ("`ingest`, which checks first", num_clips, checks_s),
        ("`pre_encode.py`", num_theirs, theirs_s),
    ]
    per_clip_s = theirs_s[1] / num_theirs
    return [
        "| what | clips | CPU time a clip | wall time | times faster by CPU time |",
        "|---|---|---|---|---|",
        *(
            f"| {what} | {count:,} | {cpu_s / count * 1e3:.1f} ms | {wall_s:.0f} s | "
            f"{per_clip_s / (cpu_s / count):.2f} |"
            for what, count, (wall_s, cpu_s) in rows
        ),
    ]


def pre_encode(corpus: Path, codec: AudioCodec, output: Path) -> None:
    """Encode a folder of clips as `pre_encode.py` does, on a CPU."""
    lightning: Any = importlib.import_module("pytorch_lightning")
    theirs: Any = importlib.import_module("pre_encode")
    torchaudio.load = _load  # torchaudio's own needs torchcodec, and that a system's ffmpeg
    rate = codec.timebase.sample_rate
    loader = theirs.create_dataloader_from_config(
        {
            "dataset_type": "audio_dir",
            "datasets": [{"id": "clips", "path": str(corpus)}],
            "drop_last": False,
        },
        batch_size=BATCH_CLIPS,
        num_workers=NUM_LOADERS,
        sample_rate=rate,
        sample_size=round(LONGEST_S * rate),
        audio_channels=codec.num_channels,
        shuffle=False,
    )
    module = theirs.PreEncodedLatentsInferenceWrapper(
        model=Autoencoder(codec), output_path=str(output), sample_size=round(LONGEST_S * rate)
    )
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False
    )
    trainer.validate(module, loader, verbose=False)


def _load(path: str, **_: object) -> tuple[Tensor, int]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T), rate


if __name__ == "__main__":
    main()
