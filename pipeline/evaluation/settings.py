"""Settings of an evaluation."""

from __future__ import annotations

from pydantic import Field

from pipeline.evaluation.execution import EvaluationResources
from pipeline.evaluation.onnx_network import OnnxSettings, OpinionSettings
from pipeline.settings import Settings
from pipeline.tracking import TrackingSettings


class PublishedFigure(Settings):
    """A figure that others report for the protocol of a recipe, shown beside our own."""

    measure: str
    """Name of the figure in the report, or its beginning, such as `voice similarity, wavlm`."""
    value: float
    """Published value."""
    source: str
    """Publication that reports it, and the model that it is reported for."""


class EvaluateSettings(Settings):
    """Measures of an evaluation, and the clips they are taken on."""

    per_modality: int = Field(8, ge=1)
    """Number of clips of each modality, from the splits test and validation."""
    per_corpus: int | None = Field(None, ge=1)
    """Number of clips of each corpus, in place of `per_modality`; figures of speech are then
    reported for each corpus with as many clips. Null takes `per_modality`."""
    num_digits: int = Field(10, ge=0)
    """Number of further clips of one spoken digit each, for the digit recogniser."""
    num_seeds: int = Field(1, ge=1, le=16)
    """Number of generations of each prompt. More than one measures the diversity between seeds;
    all other figures are those of the first."""
    max_duration_s: float = Field(8.0, gt=0)
    """Longest clip, seconds; longer ones are left out and counted."""
    fill_from_training: bool = False
    """Whether training clips are used too if too few are held out. This is for tiny corpora; the
    result is not a held-out one then."""
    num_flow_steps: int | None = Field(None, ge=1)
    """Solver steps for each block; null uses those of the bundle."""
    guidance_scale: float | None = Field(None, ge=0)
    """Scale of classifier-free guidance; null uses that of the bundle."""
    seed: int = Field(0, ge=0)
    """Seed of the choice of clips, the noise, and the confidence intervals."""
    asr: str | None = None
    """Folder of a Whisper model in CTranslate2 form, for word and character error rates and for
    stop errors; null leaves the error rates out. Nothing is downloaded."""
    asr_threads: int = Field(1, ge=1, le=256)
    """CPU threads of the recogniser in each worker."""
    american_spelling: bool = True
    """Whether British and American spellings count as the same word in error rates."""
    speaker_encoder: str | None = None
    """Folder of an x-vector model of the transformers library, such as WavLM-SV, for voice
    similarity besides the built-in encoders. Do not use the one that the data was encoded with."""
    clap: str | None = None
    """Folder of a CLAP model of the transformers library, for its score and for distances in its
    embedding; null leaves them out."""
    dnsmos: str | None = None
    """File `sig_bak_ovr.onnx` of the package speechmos, for predicted opinion scores of speech;
    null leaves them out. Needs onnxruntime, which the extra `eval` brings."""
    embeddings: tuple[OnnxSettings, ...] = ()
    """Further embeddings for distances between sets of clips, such as VGGish or PANNs, in ONNX
    files that take waveforms."""
    opinions: tuple[OpinionSettings, ...] = ()
    """Further predicted opinion scores, such as UTMOS, in ONNX files that take waveforms."""
    request_voices: bool = False
    """Whether the model gets the speaker embedding of another recording of the clip's speaker, as
    from a user who clones a voice. Needs a bundle with voices and the directory `latents/` of the
    data."""
    continue_recordings: bool = False
    """Whether the model continues another recording of the clip's speaker, with its transcript:
    voice cloning by continuation. Recordings without a transcript are not continued."""
    classifier_clips: int = Field(1000, ge=0)
    """Largest number of real clips of the training split on which each classifier (sound classes of
    a corpus, instrument families) is trained, and of held-out clips on which it is tested; 0 leaves
    the class measures out. Raise it for more certain figures, lower it to save time."""
    against: str | None = None
    """Output directory of another evaluation on the same clips; paired differences to it are
    reported. Null compares with none."""
    published: tuple[PublishedFigure, ...] = ()
    """Published figures to show beside those measured."""
    resources: EvaluationResources = EvaluationResources()
    """Worker processes; the results do not depend on them."""
    tracking: TrackingSettings | None = None
    """Logs figures, page, curves and samples to MLflow, for instance with `tracking.uri`; null logs
    nothing."""
