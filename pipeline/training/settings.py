"""Settings of a training run: one tree, from which model, feed and engine are derived."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from model.config import MODALITIES
from model.optim import OptimConfig
from pipeline.settings import Settings, digest_of
from pipeline.tracking import TrackingSettings

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]

ADJUSTABLE_OPTIM = (
    "optim.num_steps",
    "optim.learning_rate",
    "optim.warmup_steps",
    "optim.decay_share",
    "optim.final_share",
    "optim.decay",
    "optim.clip_norm",
)
"""Settings of `OptimConfig` that may change when a run is resumed. The learning rate is a function
of the step and of these settings alone, so it follows the new schedule from the first resumed step
on."""

_GPU_TILE = 128
"""FlexAttention's block of positions."""


class RunSettings(Settings):
    """Settings of a training run, by which a start finds out whether it continues the run."""

    free: ClassVar[tuple[str, ...]] = ()
    """Dotted keys, or beginnings of them, that may differ between two starts, because the weights
    do not depend on them."""
    adjustable: ClassVar[tuple[str, ...]] = ()
    """Dotted keys of the settings that may change when a run is resumed; every change is recorded
    in `run.json`."""

    def identity(self) -> str:
        """Digest of the settings that identify a run: all but the free and adjustable ones."""
        return digest_of(self._identifying())

    def _identifying(self) -> dict[str, Any]:
        values = self.model_dump(mode="json")
        for key in (*self.free, *self.adjustable):
            *path, last = key.split(".")
            inner = values
            for name in path:
                inner = inner[name]
            del inner[last]
        return values


class LoraSettings(Settings):
    """Adapters of low rank (LoRA, arXiv:2106.09685), which the library peft adds to linear maps.
    They alone are trained, and an export merges them into the weights."""

    rank: Positive = 8
    """Rank of every adapter, `r` in peft."""
    alpha: Positive = 8
    """What an adapter adds is scaled by `alpha / rank`; `lora_alpha` in peft."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Linear maps that get an adapter, by the end of their names, such as `q_proj`;
    `target_modules` in peft. Null takes all in the backbone's layers and the flow head. The
    heads of stop and duration, which read what these change, always get theirs."""


class ModelSettings(Settings):
    """The model that is trained."""

    preset: str = "tiny"
    """Name in `model.config.PRESETS`."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Fields of `ModelConfig` that differ from the preset, with the same nesting. Latent width,
    speaker width and speaker token are derived from the shards and the tokenizer, and cannot be
    set."""
    tokenizer: str | None = None
    """Folder of a published tokenizer, or `phonemes`: bytes, but the words as sounds of the
    International Phonetic Alphabet; null uses bytes."""
    pretrained: str | None = None
    """Folder of published Qwen3 weights to start the backbone from; null initialises it at
    random."""
    init_from: str | None = None
    """Weights to start the whole model from: a bundle, by folder or by the name of a shipped one,
    or the average of another run, as RUN or RUN@STEP. Optimiser and schedule start anew. With
    the default `preset` and no `overrides` the architecture is that of the weights. The latent
    statistics are theirs too, so `feed.importance_power` is ignored."""
    lora: LoraSettings | None = None
    """Trains adapters on the weights of `init_from`, which stay as they are; null trains all
    weights."""

    @model_validator(mode="after")
    def _adapters_have_weights_to_adapt(self) -> Self:
        if self.lora is not None and self.init_from is None:
            raise ValueError(
                "lora adapts trained weights and there are none; set init_from to a bundle or a "
                "run, or leave out lora to train all weights"
            )
        return self

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.pretrained is not None and self.init_from is not None:
            raise ValueError(
                f"pretrained {self.pretrained!r} and init_from {self.init_from!r} both name "
                "weights to start from; give one of them"
            )
        return self


class FeedSettings(Settings):
    """How clips become packed batches."""

    documents_per_step: Positive = 256
    """Number of clips in one optimiser step, over all workers."""
    pack_length: Positive = 8192
    """Number of positions in a packed row; longer clips are cropped at a block edge and counted."""
    rows_per_micro_batch: Positive = 1
    """Number of rows that one worker passes through the model at once. Lower it if memory runs
    out."""
    num_noisy_copies: Positive = 1
    """Number of noisy copies of every clip; more copies give more velocity targets in each pass."""
    modality_weights: dict[str, Factor] | None = None
    """Share of each modality in the stream, normalised over those in the shards: 0, or at least
    1/1024 of the sum. Null sets it proportional to the square root of the number of clips."""
    language_weights: dict[str, Factor] = Field(default_factory=dict)
    """How often clips of a language are drawn, relative to others of their modality; 1 for
    languages that are not named."""
    corpus_weights: dict[str, Factor] = Field(default_factory=dict)
    """How often clips of a corpus are drawn, relative to others of their modality; 1 for corpora
    that are not named."""
    condition_dropout: Share = 0.1
    """Share of clips trained without description and speaker, for classifier-free guidance."""
    speaker_dropout: Share = 0.1
    """Share of the remaining clips with a voice that are trained without their voice."""
    duration_share: Share = 0.5
    """Share of clips without words whose prompt names the duration."""
    speech_duration_share: Share = 0.2
    """Share of clips with words whose prompt names the duration, for requests of an exact one."""
    history_noise_share: Share = 0.5
    """Share of clips whose clean copy gets noise, which narrows the gap to generated history."""
    history_noise_max: Annotated[float, Field(ge=0)] = 0.15
    """Largest standard deviation of that noise, in standard deviations of each channel."""
    flow_time_mean: float = 0.4
    """Mean of the logit of the flow time; positive values favour the data side."""
    flow_time_std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation of that logit."""
    uniform_time_share: Share = 0.1
    """Share of flow times that are drawn uniformly. The solver visits the ends, which the
    logit-normal hardly does."""
    importance_power: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Exponent of the importance of a channel, by which normalised latents are scaled: 0 gives
    every channel the same variance, 1 makes the flow loss measure what is heard. Needs a codec that
    states the importance of its channels."""
    prefetch_steps: Positive = 2
    """Number of steps that are prepared ahead in the background."""
    skip_steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Steps that are skipped without an update, numbered from 0 as in the error about a loss that
    is not finite. May be set on resume, to continue past a batch that breaks training."""

    @model_validator(mode="after")
    def _known_modalities(self) -> Self:
        weights = self.modality_weights
        if weights is None:
            return self
        unknown = sorted(set(weights) - set(MODALITIES))
        if unknown:
            raise ValueError(f"modality_weights names {unknown}; known are {list(MODALITIES)}")
        if not any(weights.values()):
            raise ValueError("modality_weights are all 0; give at least one modality a share")
        return self


class WorkerSettings(Settings):
    """Ray Train workers and what each of them reserves."""

    num_workers: Positive = 1
    """Number of training processes, one for each device."""
    use_gpu: bool = False
    """Whether every worker uses a GPU, with NCCL; otherwise training runs on the CPU, with gloo."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """Logical CPUs reserved for a worker."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Restarts of the worker group after a lost worker, from the last checkpoint; -1 has no
    limit."""


class EngineSettings(WorkerSettings):
    """Workers, precision and memory. These settings change the result by rounding only."""

    zero_stage: Literal[1, 2, 3] = 2
    """Stage of DeepSpeed ZeRO: 1 shards the optimiser, 2 also gradients, 3 also parameters."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the forward pass; `auto` is bf16 on a GPU and on a CPU with AMX tiles, which multiply
    bf16 about eight times as fast as fp32, and fp32 on other CPUs. Master weights, moments and the
    average are always float32."""
    compile_layers: bool = False
    """Whether layers are compiled by TorchInductor. On a CPU this needs a C++ compiler, and a bf16
    step is 1.3 times as fast after about a minute of compilation. Not with `zero_stage` 3."""
    recompute_layers: bool = False
    """Whether the backward pass computes every layer again from its input, so that only the inputs
    are kept: about a tenth of the activation memory for one more forward pass. Set it where a
    micro-batch does not fit (`pipeline.training.hardware.activation_bytes`)."""


class SaveSettings(Settings):
    """When checkpoints are written, and how many are kept.

    Training goes on while files are written, from a copy of the state in the memory of the node.
    """

    every: Positive = 1000
    """Steps between checkpoints; the last step always has one."""
    every_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Minutes after which a checkpoint is written whatever the step, so that a lost node costs no
    more than that; 0 writes them by steps alone."""
    num_to_keep: Positive = 3
    """Number of newest checkpoints that are kept."""


class CheckpointSettings(SaveSettings):
    """When checkpoints are written, and which are kept."""

    keep_every: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints that are never removed, a multiple of `every`; 0 keeps none."""
    keep_best: Annotated[int, Field(ge=0)] = 0
    """Checkpoints with the lowest validation loss that are kept besides the newest ones. Needs
    `validation.every`."""

    def most_at_once(self, num_steps: int) -> int:
        """The most checkpoints on disk at once; a new one is written before the oldest goes."""
        kept = num_steps // self.keep_every if self.keep_every else 0
        return self.num_to_keep + 1 + self.keep_best + kept


class ValidationSettings(Settings):
    """Loss of the weight average on the validation split of the shards, at checkpoints."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps between validations, a multiple of `checkpoint.every`; the last step is validated too.
    0 turns validation off. The first worker validates while the others wait."""
    num_documents: Positive = 128
    """Documents that are validated, equally many of each modality. Time grows with it; the noise of
    the loss falls with its square root."""


class SampleSettings(Settings):
    """Audio generated with the weight average, during training and by the exported bundle."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps between samples, a multiple of `checkpoint.every`; 0 makes none. Needs the codec."""
    descriptions: tuple[str, ...] = ()
    """Descriptions of the samples; without any, one of each modality is taken from the shards."""
    max_seconds: Annotated[float, Field(gt=0)] = 8.0
    """Longest sample, seconds; of speech that is read in several parts, the longest part."""
    num_flow_steps: Positive | None = None
    """Solver steps for each block, of samples and of requests to the exported bundle that do not
    set them; null uses the default of each modality."""
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    """Scale of classifier-free guidance, of samples and of requests that do not set it; null uses
    the default of each modality."""

    def sampling(self) -> dict[str, dict[str, Any]]:
        """Sampling options that differ from the defaults, by modality, for a bundle."""
        of_all = {"num_flow_steps": self.num_flow_steps, "guidance_scale": self.guidance_scale}
        given = {name: value for name, value in of_all.items() if value is not None}
        return {modality: dict(given) for modality in MODALITIES} if given else {}


class DistillSettings(Settings):
    """Training of a student of the weights in `model.init_from` (`model.distillation`)."""

    num_flow_steps: Annotated[int, Field(ge=1, le=4)] = 1
    """Solver steps of the student for each block."""
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 2.0
    """Scale of the teacher's guidance that the student learns; its own requests need none."""
    num_teacher_steps: Positive = 4
    """Number of steps of the teacher in one step of the student; training time grows with it."""


class TrainSettings(RunSettings):
    """A training run."""

    free = (
        "model.init_from",  # its weights count by their digest, which is in `run.json` too
        "feed.rows_per_micro_batch",
        "feed.prefetch_steps",
        "engine",
        "checkpoint",
        "validation",
        "sample",
        "log_every",
        "tracking",
    )
    adjustable = (*ADJUSTABLE_OPTIM, "feed.skip_steps")

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, order, crops, noise and dropout."""
    model: ModelSettings = ModelSettings()
    """Architecture and initial weights."""
    feed: FeedSettings = FeedSettings()
    """Packing, mixture, noise and dropout of the batches."""
    optim: OptimConfig = OptimConfig()
    """Optimiser, schedule and number of steps."""
    stop_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the end-of-audio loss, relative to the flow loss."""
    engine: EngineSettings = EngineSettings()
    """Workers and DeepSpeed."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Interval and number of checkpoints."""
    validation: ValidationSettings = ValidationSettings()
    """Loss on held-out clips, measured at checkpoints."""
    sample: SampleSettings = SampleSettings()
    """Audio samples of the run, and sampling defaults of its bundle."""
    distill: DistillSettings | None = None
    """Trains a student with few flow steps and no guidance, as `audiocalm distill` does; null
    trains on data."""
    log_every: Positive = 10
    """Steps between logged metrics."""
    tracking: TrackingSettings = TrackingSettings()
    """Experiment tracking with MLflow."""

    @model_validator(mode="after")
    def _follow_checkpoints(self) -> Self:
        steps = {
            "sample.every": self.sample.every,
            "validation.every": self.validation.every,
            "checkpoint.keep_every": self.checkpoint.keep_every,
        }
        for name, value in steps.items():
            if value % self.checkpoint.every:
                raise ValueError(
                    f"{name} {value} is no multiple of checkpoint.every {self.checkpoint.every}; "
                    "it applies to checkpoints"
                )
        if self.checkpoint.keep_best and not self.validation.every:
            raise ValueError(
                f"checkpoint.keep_best is {self.checkpoint.keep_best} and validation.every is 0; "
                "set validation.every, since the best checkpoints are those of the lowest "
                "validation loss"
            )
        return self

    @model_validator(mode="after")
    def _student_has_a_teacher_and_its_steps(self) -> Self:
        if self.distill is None:
            return self
        if self.model.init_from is None:
            raise ValueError("distill needs a teacher; set model.init_from to a run or a bundle")
        if self.model.lora is not None:
            raise ValueError("distill trains all weights of the student; leave out model.lora")
        wanted = (self.distill.num_flow_steps, 1.0)
        given = (self.sample.num_flow_steps, self.sample.guidance_scale)
        if given != wanted:
            raise ValueError(
                f"sample.num_flow_steps and sample.guidance_scale are {given} and the student is "
                f"made for {wanted}; set them so, or use `audiocalm distill`"
            )
        if self.validation.every:
            raise ValueError(
                f"validation.every is {self.validation.every} and validation measures the loss "
                "against data, which a student is not trained for; set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _compiles_whole_layers(self) -> Self:
        if self.engine.compile_layers and self.engine.zero_stage == 3:
            raise ValueError(
                "engine.compile_layers does not work with engine.zero_stage 3, which gathers the "
                "weights of a layer while it runs; use stage 1 or 2"
            )
        return self

    @model_validator(mode="after")
    def _rows_suit_the_device(self) -> Self:
        if self.engine.use_gpu and self.feed.pack_length % _GPU_TILE:
            raise ValueError(
                f"feed.pack_length {self.feed.pack_length} is no multiple of {_GPU_TILE}, the tile "
                "of attention on a GPU"
            )
        return self

    def _identifying(self) -> dict[str, Any]:
        values = super()._identifying()
        # Settings that came later count only where they are used: older runs go on.
        optional = [(values["model"], "lora"), (values, "distill")]
        optional += [(values["feed"], name) for name in ("language_weights", "corpus_weights")]
        for room, name in optional:
            if not room[name]:
                del room[name]
        return values
