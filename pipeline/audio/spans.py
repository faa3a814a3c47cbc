"""Spans of files whose decoder cannot seek exactly: one pass over the file serves them all.

A process keeps the decoders of the files it read last, and the samples that they gave last. A span
that starts there or later costs no more than its own decoding, and every span is the very samples
that decoding the whole file gives. A span before what is kept starts the file over.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator

import numpy as np
from jaxtyping import Float

from pipeline.audio.faults import AudioError, AudioInfo, Decoder
from pipeline.errors import MachineError

MAX_FILES = 2
"""Files whose decoders a process keeps open."""
MAX_KEPT_BYTES = 64 * 2**20
"""Decoded samples that are kept of each: 6 minutes of stereo at 44.1 kHz."""

OpenDecoder = Callable[[], contextlib.AbstractContextManager[Decoder]]
"""Function that opens the file from its start."""


class OnePass:
    """A decoder that is read once, by several readers.

    Args:
        open_decoder: Function that opens the file.
    """

    def __init__(self, open_decoder: OpenDecoder) -> None:
        self._open = open_decoder
        self._stack = contextlib.ExitStack()
        self._decoder = self._stack.enter_context(open_decoder())
        self._blocks = self._decoder.blocks(0)
        self._kept: deque[tuple[int, Float[np.ndarray, "samples channels"]]] = deque()
        self._kept_bytes = 0
        self._end = 0
        self._warnings: list[tuple[float, str]] = []
        self._lock = threading.Lock()
        self._failure: AudioError | None = None
        self._is_closed = False

    @property
    def info(self) -> AudioInfo:
        """Facts from the header of the file."""
        return self._decoder.info

    @property
    def decoder(self) -> Decoder:
        """The decoder itself, for a caller that needs no shared pass."""
        return self._decoder

    def reaches(self, start: int) -> bool:
        """Whether a span from `start` on can be read without starting over."""
        with self._lock:
            return self._reaches(start)

    def close(self) -> None:
        """Close the decoder; readers that have not finished open their own."""
        with self._lock:
            self._close()

    def blocks(
        self, start: int, warnings: list[str]
    ) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Samples from `start` on.

        Args:
            start: First sample.
            warnings: List that receives the warnings from the start of the file to the reader's
                position, as if it had read alone.
        """
        position, num_told = start, 0
        while True:
            with self._lock:
                if not self._reaches(position):
                    break
                block = self._block_at(position)
                told = position if block is None else position + len(block)
                due = [text for at, text in self._warnings if block is None or at < told]
            warnings += due[num_told:]
            num_told = len(due)
            if block is None:
                return
            yield block
            position += len(block)
        with self._open() as alone:
            for block in alone.blocks(position):
                warnings += alone.warnings[num_told:]
                num_told = len(alone.warnings)
                yield block
            warnings += alone.warnings[num_told:]

    def _close(self) -> None:
        self._is_closed = True
        self._kept.clear()
        with contextlib.suppress(MachineError):  # whom it concerns was told when it happened
            self._stack.close()

    def _reaches(self, start: int) -> bool:
        first = self._kept[0][0] if self._kept else 0
        return not self._is_closed and start >= first

    def _block_at(self, position: int) -> Float[np.ndarray, "samples channels"] | None:
        """The block that holds a sample, from that sample on; None at the end of the file."""
        while position >= self._end:
            block = self._next_block()
            if block is None:
                return None
            self._keep(block)
        start, block = next(kept for kept in reversed(self._kept) if kept[0] <= position)
        return block[position - start :]

    def _next_block(self) -> Float[np.ndarray, "samples channels"] | None:
        if self._failure is not None:
            raise AudioError(self._failure.reason, self._failure.detail)
        count = len(self._decoder.warnings)
        try:
            block = next(self._blocks, None)
        except AudioError as error:
            self._failure = error
            raise
        except MachineError:  # storage failed, not the file: the next span tries anew
            self._close()
            raise
        self._warnings += [(self._end, text) for text in self._decoder.warnings[count:]]
        if block is None:
            self._stack.close()  # the samples that are kept need no open file
        return block

    def _keep(self, block: Float[np.ndarray, "samples channels"]) -> None:
        block.setflags(write=False)  # other readers are given the same samples
        self._kept.append((self._end, block))
        self._end += len(block)
        self._kept_bytes += block.nbytes
        while self._kept_bytes > MAX_KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popleft()[1].nbytes


class SpanDecoder:
    """The decoder of one span: a reader of a pass that others read too."""

    can_seek = False
    seeks_exactly = True

    def __init__(self, one_pass: OnePass) -> None:
        self._pass = one_pass
        self.info = one_pass.info
        self.warnings: list[str] = []

    def blocks(self, start: int) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Samples from `start` on."""
        return self._pass.blocks(start, self.warnings)

    def close(self) -> None:
        """Do nothing: the pass stays open for the next span."""


class Passes:
    """The passes of a process, by file; the ones used last are kept."""

    def __init__(self) -> None:
        self._passes: OrderedDict[Hashable, OnePass] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, file: Hashable) -> OnePass | None:
        """The pass of a file, if there is one."""
        with self._lock:
            if file in self._passes:
                self._passes.move_to_end(file)
            return self._passes.get(file)

    def put(self, file: Hashable, one_pass: OnePass) -> None:
        """Keep a pass, in place of an older one of the file and of those used least recently."""
        with self._lock:
            dropped = [self._passes.pop(file, None)]
            self._passes[file] = one_pass
            while len(self._passes) > MAX_FILES:
                dropped.append(self._passes.popitem(last=False)[1])
        for old in dropped:
            if old is not None:
                old.close()
