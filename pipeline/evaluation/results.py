"""An evaluation on disk: results, values of clips, samples with spectrograms, and the report."""

from __future__ import annotations

import io
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from pipeline.evaluation import signal
from pipeline.evaluation.comparison import CLIPS, RESULTS
from pipeline.evaluation.evaluate import MARKDOWN, PAGE, Evaluation
from pipeline.evaluation.findings import FORMS
from pipeline.evaluation.held_out import TRAINING
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.report import Report, Sample, write_report
from pipeline.evaluation.tables import markdown_tables, measured_on, result_tables, worst_clips
from pipeline.figures import save_spectrogram
from pipeline.storage import Folder

LEAD = (
    "{clips} in three forms: the real recording at the codec's rate, what the codec makes "
    "of it (the ceiling of the model), and what the model makes from the description alone. The "
    "samples are those with the worst generated audio of each modality, worst first."
)


def write_evaluation(evaluation: Evaluation, output: Path, samples_per_modality: int = 2) -> None:
    """Write everything below `output`; `results.json` comes last.

    Samples of an earlier evaluation are removed.

    Args:
        evaluation: Results and clips.
        output: Directory, created if needed.
        samples_per_modality: Number of clips of each modality to keep as audio, worst first.
    """
    samples = []
    for clips in evaluation.clips.values():
        for clip in clips[:samples_per_modality]:
            samples += _write_forms(evaluation.listen(clip), output / "samples")
    written = {sample.audio.stem for sample in samples}
    for path in (output / "samples").glob("*-*-*-*.*"):
        if path.suffix in (".wav", ".png") and path.stem not in written:
            path.unlink()
    tables = [*result_tables(evaluation.results), *worst_clips(evaluation)]
    lead = LEAD.format(clips=measured_on(evaluation.results))
    write_report(Report("AudioCALM: evaluation", lead, samples, (), tables), output / PAGE)
    folder = Folder.at(output)
    folder.write_bytes(MARKDOWN, f"{markdown_tables(evaluation.results)}\n".encode())
    folder.write_json(CLIPS, evaluation.clip_values)
    folder.write_json(RESULTS, evaluation.results)


def write_wav(path: Path, waveform: Tensor, sample_rate: int) -> None:
    """A waveform, `channels samples`, as a 16-bit WAV that appears complete or not at all."""
    sink = io.BytesIO()
    pcm = waveform.clamp(-1, 1).T.numpy()
    soundfile.write(sink, pcm, sample_rate, format="WAV", subtype="PCM_16")
    Folder.at(path.parent).write_bytes(path.name, sink.getvalue())


def sample_card(title: str, text: str, wav: Path) -> Sample:
    """A card for the report over a WAV file; its spectrogram is written beside it."""
    frames, sample_rate = soundfile.read(wav, dtype="float32", always_2d=True)
    picture = wav.with_suffix(".png")
    save_spectrogram(picture, frames.T, sample_rate)
    facts = signal.examine(torch.from_numpy(frames.T.copy()), sample_rate)
    shown = {"duration": f"{facts.duration_s:.2f} s", "level": f"{facts.level_dbfs:.1f} dBFS"}
    return Sample(title, text, wav, picture, shown)


def clip_origin(split: str) -> str:
    """Caption of a sample by the split of its clip."""
    return "training clip" if split == TRAINING else "held-out clip"


def _write_forms(item: Listening, folder: Path) -> list[Sample]:
    stem = "".join(c if c.isalnum() else "-" for c in item.clip.clip_id)[-60:].strip("-")
    text = item.clip.description
    if item.clip.transcript:
        text += f" “{item.clip.transcript}”"
    samples = []
    for form in FORMS:
        waveform: Tensor | None = getattr(item, form)
        if waveform is None or waveform.numel() == 0:
            continue
        title = f"{item.clip.modality}, {form} ({clip_origin(item.clip.split)})"
        wav = folder / f"{item.clip.modality}-{item.clip.split}-{stem}-{form}.wav"
        write_wav(wav, waveform, item.sample_rate)
        samples.append(sample_card(title, text, wav))
    return samples
