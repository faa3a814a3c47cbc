"""Speaker embeddings of an index on the local disk, so that they take no memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

COLUMN = "speaker_embedding"


class SpeakerEmbeddings:
    """Embeddings by row, in a temporary file that is mapped into memory.

    An embedding of 256 values is ten times as large as the rest of its row, and a worker reads few
    of them. The file is deleted as soon as it is mapped, so nothing is left after a kill; its space
    is freed when the process ends. `TMPDIR` chooses the disk.

    Args:
        columns: The embeddings, in parts. They are written one part after the other.

    Attributes:
        widths: Number of dimensions of every row; 0 without an embedding.
    """

    def __init__(self, columns: Iterable[pa.ChunkedArray]) -> None:
        schema = pa.schema([(COLUMN, pa.list_(pa.float32()))])
        with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
            with pa.ipc.new_file(file.name, schema) as writer:
                for column in columns:
                    writer.write_table(pa.table([column.cast(schema.types[0])], schema=schema))
            self._column = pa.ipc.open_file(pa.memory_map(file.name)).read_all()[COLUMN]
        lengths = pc.fill_null(pc.list_value_length(self._column), 0)
        self.widths: NDArray[np.int32] = lengths.to_numpy()
        self._places: NDArray[np.int64] = np.arange(len(self.widths))

    def reorder(self, order: NDArray[np.int64]) -> None:
        """Make row `number` the one that was `order[number]`."""
        self._places, self.widths = self._places[order], self.widths[order]

    def of(self, number: int) -> NDArray[np.float32] | None:
        """Embedding of a row; None if it has none."""
        if not self.widths[number]:
            return None
        return np.array(self._column[int(self._places[number])].values, dtype=np.float32)

    def mean(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean of rows that have an embedding, of unit length."""
        mean = np.mean(self._column.take(pa.array(self._places[rows])).to_pylist(), axis=0)
        unit: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-8)
        return unit.astype(np.float32)
