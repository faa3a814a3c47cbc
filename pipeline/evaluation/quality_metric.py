"""Quality of speech without a reference: DNSMOS P.835, from a published ONNX file by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audio.files import resample
from pipeline.evaluation.findings import FORMS, Evidence, Findings
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric
from pipeline.evaluation.onnx_network import Run, open_network
from pipeline.storage import sha256

SAMPLE_RATE = 16_000
"""Rate of the model's input, Hz."""
WINDOW_S = 9.01
"""Length of the model's input, seconds."""
_HOP_S = 1.0
SCALES = ("signal", "background", "overall")
"""Scales of P.835 in the order of the model's output."""
_TO_MOS = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)
"""Polynomials, highest power first, that map the model's output to opinion scores."""
_NOTE = (
    "predicted opinion score from 1 to 5 of a model trained on noisy telephone speech; short clips "
    "are repeated to 9 s; compare columns"
)


class QualityMetric(Metric):
    """DNSMOS P.835 of speech: signal, background and overall quality."""

    name = "DNSMOS"

    def __init__(self, path: str | Path, run: Run | None = None) -> None:
        """Measure with a network.

        Args:
            path: The file `sig_bak_ovr.onnx` of the package speechmos.
            run: From a window, `1 samples`, to its scales, in place of the file's network.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        self._path, self._run = Path(path), run
        self.version = f"1 {sha256(self._path.read_bytes())[:16]}"

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded network, which cannot be pickled."""
        return self.__dict__ | {"_run": None}

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether a clip is speech."""
        return clip.modality == "speech"

    def observe(self, item: Listening, form: str) -> dict[str, float]:
        """Opinion scores of a form by scale."""
        self._run = self._run or open_network(self._path)
        mono = item.form(form).float().mean(0, keepdim=True).clamp(-1, 1).numpy()
        wave = resample(mono, item.sample_rate, SAMPLE_RATE)[0].astype(np.float32)
        outputs = np.concatenate([self._run(window[None]) for window in windows(wave)])
        scores = opinion_scores(outputs).mean(0)
        return dict(zip(SCALES, map(float, scores), strict=True))

    def summarise(self, evidence: Evidence) -> Findings:
        """Mean score of each scale; what was not generated counts as silence."""
        found = Findings()
        if clips := evidence.seen_by(self.name):
            for scale in SCALES:
                forms = {
                    form: {o.clip.clip_id: o.of(self.name, form)[scale] for o in clips}
                    for form in FORMS
                }
                found.add("speech", f"DNSMOS, {scale}", "higher", forms, _NOTE)
        return found


def windows(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Windows of 9.01 s every second, `windows samples`; a shorter waveform is repeated.

    They are those that the published script takes: it counts whole seconds, and leaves out windows
    that its rounding makes a sample too short.

    Args:
        waveform: `samples` at 16 kHz.

    Source:
        Reddy, Gopal and Cutler, arXiv:2110.01763, and the published script.
    """
    size, hop = round(WINDOW_S * SAMPLE_RATE), round(_HOP_S * SAMPLE_RATE)
    doubled = waveform
    while len(doubled) < size:
        doubled = np.concatenate([doubled, doubled])
    count = int(len(doubled) // SAMPLE_RATE - WINDOW_S) + 1
    is_whole = [int((n + WINDOW_S) * SAMPLE_RATE) - n * hop == size for n in range(count)]
    every: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(doubled, size)[::hop]
    return every[:count][is_whole]


def opinion_scores(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Opinion scores, `windows scales`, of the model's outputs."""
    columns = [np.polyval(powers, outputs[:, i]) for i, powers in enumerate(_TO_MOS)]
    return np.stack(columns, axis=1)
