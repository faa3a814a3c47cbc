"""Published networks in ONNX files that take a waveform: embeddings, predicted opinion scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from model.config import MODALITIES
from pipeline.audio.files import resample
from pipeline.evaluation.findings import FORMS, Evidence, Findings
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric
from pipeline.settings import Settings
from pipeline.storage import sha256

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Function from one batch of the input to the first output."""


class OnnxSettings(Settings):
    """A network from waveforms of any length, `1 samples`, features of its own included."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Name in the report, such as VGGish."""
    path: str
    """ONNX file with one input. Of the first output the last axis is the vector, or the score; it
    is averaged over the others, such as frames."""
    sample_rate: int = Field(ge=1000)
    """Rate of the input, Hz."""
    min_duration_s: float = Field(default=1.0, ge=0)
    """Shortest input, seconds; what is shorter is repeated."""


class OpinionSettings(OnnxSettings):
    """A network that predicts opinion scores."""

    modalities: tuple[str, ...] = ("speech",)
    """Modalities that it was made for."""


class OnnxNetwork:
    """The network of a file; the session stays behind when it is pickled.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be opened, see `open_network`.
    """

    def __init__(self, settings: OnnxSettings) -> None:
        self._settings = settings
        self.name = settings.name
        digest = sha256(Path(settings.path).read_bytes())[:16]
        self.version = f"{digest} {settings.sample_rate} {settings.min_duration_s:g}"
        self._run: Run | None = open_network(settings.path)

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which cannot be pickled."""
        return self.__dict__ | {"_run": None}

    def __call__(self, waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
        """Vector of `channels samples`; channels are averaged.

        Raises:
            ValueError: If the network gives no finite numbers.
        """
        self._run = self._run or open_network(self._settings.path)
        rate = self._settings.sample_rate
        mono = resample(waveform.float().mean(0, keepdim=True).numpy(), sample_rate, rate)[0]
        shortest = max(1, round(self._settings.min_duration_s * rate))
        if 0 < len(mono) < shortest:
            mono = np.resize(mono, shortest)
        found = self._run(mono.astype(np.float32)[None])
        vector = np.asarray(found, np.float32).reshape(-1, found.shape[-1]).mean(0)
        if not np.isfinite(vector).all():
            raise ValueError(f"{self._settings.path} gives numbers that are not finite")
        return vector


class OnnxEmbedding(OnnxNetwork):
    """An `AudioEmbedding` without texts, such as VGGish (arXiv:1609.09430) or PANNs."""

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.floating[Any]]:
        """Vector of `channels samples`."""
        return self(waveform, sample_rate)

    def score(self, waveform: Tensor, sample_rate: int, text: str) -> None:
        """None, since the embedding has no text encoder."""
        return


class OpinionMetric(Metric):
    """A predicted opinion score, such as UTMOS (arXiv:2204.02152)."""

    def __init__(self, settings: OpinionSettings) -> None:
        self._network, self._modalities = OnnxNetwork(settings), settings.modalities
        self.name = f"opinion {settings.name}"
        self.version = self._network.version

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether it was made for clips of this modality."""
        return clip.modality in self._modalities

    def observe(self, item: Listening, form: str) -> float:
        """Score of a form."""
        return float(self._network(item.form(form), item.sample_rate).mean())

    def summarise(self, evidence: Evidence) -> Findings:
        """Mean score of each modality; what was not generated counts as silence."""
        found = Findings()
        for modality in MODALITIES:
            clips = evidence.seen_by(self.name, modality)
            if clips:
                forms = {f: {o.clip.clip_id: o.of(self.name, f) for o in clips} for f in FORMS}
                found.add(modality, self._network.name, "higher", forms, "predicted opinion score")
        return found


def open_network(path: str | Path) -> Run:
    """The network of an ONNX file, on one thread of the CPU.

    Raises:
        ValueError: If onnxruntime is missing or cannot read the file, or it has several inputs.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError as error:
        raise ValueError(f"{path} needs onnxruntime; install the extra `eval`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except (errors.Fail, errors.InvalidProtobuf, errors.InvalidGraph, errors.NotImplemented) as no:
        raise ValueError(f"{path} is no network that onnxruntime reads: {no}") from no
    names = [item.name for item in session.get_inputs()]
    if len(names) != 1:
        raise ValueError(f"{path} has the inputs {', '.join(names)}; one waveform is given")
    return lambda batch: np.asarray(session.run(None, {names[0]: batch})[0], np.float32)
