"""Errors that callers of the pipeline may handle."""

from __future__ import annotations

from typing import Any


class PipelineError(Exception):
    """Base of the pipeline's own errors; a job prints the message without a traceback."""


class SettingsError(PipelineError, ValueError):
    """A recipe, override or command line value is wrong."""


class ClusterError(PipelineError):
    """No Ray cluster could be reached, or it runs other versions."""


class IncompleteError(PipelineError):
    """A directory lacks its completion marker, or its contents disagree with it."""


class InUseError(PipelineError):
    """Another run writes the directory."""


class UnitsFailedError(PipelineError):
    """Some units of a stage failed; the others are done, and running again does only these."""


class TooManyRejectsError(PipelineError):
    """More clips were rejected than the recipe allows."""


class TooManyFallbacksError(PipelineError):
    """More texts fell back to their templates, without a usable completion, than allowed."""


class MachineError(PipelineError):
    """Storage, network or accelerator failed, not the data: the same work may succeed later."""


class DeviceError(MachineError):
    """The accelerator failed; the process that used it can use it no more."""


class OutOfMemoryError(MachineError):
    """Memory of the accelerator or the machine was exhausted, also after freeing some."""


class NonFiniteError(PipelineError):
    """A loss or gradient was not finite on at least one rank."""


class DamagedError(IncompleteError):
    """A checkpoint that was complete has lost or altered files."""


class DiskFullError(PipelineError):
    """There is no room for a checkpoint; names the newest one that is good."""


class PlannedOnlyError(Exception):
    """A dry run found work to do; raised in place of doing it.

    Attributes:
        preview: A `pipeline.data.units.preview.Preview`.
    """

    def __init__(self, preview: Any) -> None:
        super().__init__(str(preview))
        self.preview = preview
