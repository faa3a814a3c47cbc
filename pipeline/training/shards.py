"""Reading train-shards: the index in memory, latents and texts by byte offset from files.

Latents lie in the directory that `encode` wrote, texts beside the index. Directories of earlier
versions hold tars of their own with both, and are read as well.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import IncompleteError, SettingsError
from pipeline.faults import retried
from pipeline.storage import Folder, sha256
from pipeline.training.embeddings import COLUMN, SpeakerEmbeddings

SCHEMA_VERSION = 1
"""Version of the index and card that this reader understands."""
_OPEN_FILES = 64
_REQUIRED = (
    "key",
    "shard",
    "split",
    "modality",
    "corpus",
    "language",
    "is_singing",
    "has_transcript",
    "num_frames",
    "text_bytes",
    "mean_offset",
    "mean_size",
    "log_std_offset",
    "log_std_size",
    "json_offset",
    "json_size",
    "speaker",
    COLUMN,
)


@dataclass(frozen=True)
class Latents:
    """Posterior of every frame of a clip, raw codec scale.

    Attributes:
        mean: Mean.
        log_std: Logarithm of the standard deviation.
    """

    mean: NDArray[np.float32]
    log_std: NDArray[np.float32]


class TrainShards:
    """One split of a complete train-shards directory.

    Args:
        folder: The directory.
        split: train, validation or test.

    Raises:
        IncompleteError: If the directory is not complete, of another schema, or lacks a column.
    """

    def __init__(self, folder: Folder, split: str = "train") -> None:
        self.folder = folder
        self.card: dict[str, Any] = folder.card("shard")
        version = self.card.get("schema_version")
        if version != SCHEMA_VERSION:
            raise IncompleteError(
                f"{folder.uri} has schema version {version}; this reader needs {SCHEMA_VERSION}: "
                "run `audiocalm shard` again"
            )
        self.digest = sha256(folder.read_bytes("dataset.json"))
        self.index, self.embeddings = self._read_index(split)
        self._latents = self._find_latents()
        self._files: OrderedDict[str, pa.NativeFile] = OrderedDict()
        self._lock = threading.Lock()
        self.latent_mean, self.latent_std = self._latent_stats()
        self._scale: NDArray[np.float32] | None = None
        self.silence = self._silence()

    def __len__(self) -> int:
        return int(self.index.num_rows)

    @property
    def latent_dim(self) -> int:
        """Number of dimensions of one latent frame."""
        return len(self.latent_mean)

    def latent_scale(self, importance_power: float) -> NDArray[np.float32]:
        """Divisor of raw latents by channel: their standard deviation over importance^power.

        Latent statistics that the shards were given are used as they are, whatever the power.

        Raises:
            SettingsError: If the codec does not state the importance of its channels.
        """
        if self._scale is not None:
            return self._scale
        importance = self.codec.get("channel_importance")
        if importance_power == 0:
            return self.latent_std
        if importance is None or len(importance) != self.latent_dim:
            raise SettingsError(
                f"feed.importance_power is {importance_power} and the codec that encoded "
                f"{self.folder.uri} states no importance of its {self.latent_dim} channels; set it "
                "to 0, or encode again with a codec whose importance was measured (train-codec "
                "does; import-codec with --clips)"
            )
        scale = np.asarray(importance, dtype=np.float32) ** importance_power
        scale /= np.sqrt(np.mean(scale**2))
        return np.asarray(self.latent_std / scale, dtype=np.float32)

    def with_latent_stats(self, mean: Sequence[float], scale: Sequence[float]) -> TrainShards:
        """The shards with other latent statistics than their own.

        Raises:
            SettingsError: If the number of channels differs.
        """
        if not len(mean) == len(scale) == self.latent_dim:
            raise SettingsError(
                f"latent statistics of {len(mean)} and {len(scale)} channels do not fit the "
                f"{self.latent_dim} of {self.folder.uri}"
            )
        given = copy.copy(self)
        given.latent_mean = np.asarray(mean, dtype=np.float32)
        given._scale = np.asarray(scale, dtype=np.float32)
        return given

    @property
    def codec(self) -> dict[str, Any]:
        """Digest, config and timebase of the codec that encoded the clips."""
        found: dict[str, Any] = self.card["codec"]
        return found

    @property
    def speaker_dim(self) -> int | None:
        """Width of the speaker embeddings; None if no clip has one."""
        widths = {int(width) for width in np.unique(self.embeddings.widths) if width}
        if len(widths) > 1:
            raise IncompleteError(
                f"{self.folder.uri} mixes speaker embeddings of widths {sorted(widths)}; "
                "encode all clips with one speaker encoder"
            )
        return widths.pop() if widths else None

    def column(self, name: str) -> NDArray[Any]:
        """A column of the index as an array."""
        return np.asarray(self.index[name].to_numpy(zero_copy_only=False))

    def row(self, number: int) -> dict[str, Any]:
        """One row of the index."""
        found: dict[str, Any] = self.index.slice(number, 1).to_pylist()[0]
        return found

    def facts(self, row: dict[str, Any]) -> dict[str, Any]:
        """Texts and facts of a clip: descriptions, transcript, language, modality, duration_s.

        Raises:
            IncompleteError: If the bytes at its offset are not JSON.
        """
        try:
            texts = row.get("texts")  # None in directories of earlier versions
            file = f"shards/{row['shard']}.tar" if texts is None else f"texts/{texts}.jsonl"
            found: dict[str, Any] = json.loads(self._range(self.folder, file, row, "json"))
        except ValueError as error:
            raise self._damaged(row, str(error)) from error
        return found

    def latents(self, row: dict[str, Any]) -> Latents:
        """The stored posterior of a clip.

        Raises:
            IncompleteError: If the bytes at its offsets do not match the index.
        """
        try:
            mean, log_std = self._array(row, "mean"), self._array(row, "log_std")
        except (ValueError, EOFError) as error:
            raise self._damaged(row, str(error)) from error
        expected = (row["num_frames"], self.latent_dim)
        if mean.shape != expected or log_std.shape != expected:
            found = f"latents of {mean.shape} and {log_std.shape}, not {expected}"
            raise self._damaged(row, found)
        return Latents(mean, log_std)

    def _damaged(self, row: dict[str, Any], what: str) -> IncompleteError:
        return IncompleteError(
            f"{self.folder.uri}, shard {row['shard']}, clip {row['key']}: {what}; files were "
            "changed after they were written, run `audiocalm shard` again"
        )

    def speakers(self) -> dict[str, NDArray[np.int64]]:
        """Rows with a speaker embedding by speaker, those of the speaker heard most first."""
        names = self.column("speaker")
        is_voiced = (self.embeddings.widths > 0) & np.array(
            [bool(name) for name in names], dtype=bool
        )
        rows = np.flatnonzero(is_voiced)
        known, of_row = np.unique(names[rows].astype(str), return_inverse=True)
        found = {str(name): rows[of_row == number] for number, name in enumerate(known)}
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def _read_index(self, split: str) -> tuple[pa.Table, SpeakerEmbeddings]:
        """Rows of a split, and their speaker embeddings.

        Raises:
            IncompleteError: If there is no index, or a file of it lacks a column.
        """
        names = self.folder.listed("index/")
        if not names:
            raise IncompleteError(f"{self.folder.uri} holds no Parquet files")
        tables = []

        def columns() -> Iterator[pa.ChunkedArray]:
            """Embeddings of one file after the other; the rest of each goes to `tables`."""
            for name in names:
                table = self.folder.read_table(name)
                missing = [name for name in _REQUIRED if name not in table.column_names]
                if missing:
                    raise IncompleteError(
                        f"the index of {self.folder.uri} lacks the columns {missing}; "
                        "run `audiocalm shard` again"
                    )
                table = table.filter(pc.equal(table["split"], split))
                tables.append(table.drop_columns([COLUMN]))
                yield table[COLUMN]

        embeddings = SpeakerEmbeddings(columns())
        table = pa.concat_tables(tables).combine_chunks()
        order = pc.sort_indices(table, sort_keys=[("shard", "ascending"), ("key", "ascending")])
        embeddings.reorder(order.to_numpy())
        return table.take(order), embeddings

    def _array(self, row: dict[str, Any], name: str) -> NDArray[np.float32]:
        payload = self._range(self._latents, f"shards/{row['shard']}.tar", row, name)
        loaded = np.load(io.BytesIO(payload), allow_pickle=False)
        return np.asarray(loaded, dtype=np.float32)

    def _range(self, folder: Folder, file: str, row: dict[str, Any], name: str) -> bytes:
        path, size = folder.join(file), row[f"{name}_size"]
        payload = retried(
            lambda: self._read_at(folder, path, size, row[f"{name}_offset"]),
            f"read {folder.uri}/{file}",
        )
        if len(payload) != size:
            raise ValueError(f"{name} ends after {len(payload)} of {size} bytes")
        return payload

    def _read_at(self, folder: Folder, path: str, size: int, offset: int) -> bytes:
        try:
            return bytes(self._handle(folder, path).read_at(size, offset))
        except OSError:
            with self._lock:
                self._files.pop(path, None)  # opened again by the next attempt
            raise

    def _handle(self, folder: Folder, path: str) -> pa.NativeFile:
        """An open file; the least recently used one is closed beyond a limit."""
        with self._lock:
            handle = self._files.pop(path, None)
            if handle is None:
                handle = folder.filesystem.open_input_file(path)
                if len(self._files) >= _OPEN_FILES:
                    self._files.popitem(last=False)[1].close()
            self._files[path] = handle
            return handle

    def _find_latents(self) -> Folder:
        """Directory of the tars with latents.

        Raises:
            IncompleteError: If it is not the one that the index was made for.
        """
        place = self.card.get("latents")
        if place is None:
            return self.folder
        uri = posixpath.join(posixpath.dirname(self.folder.uri), place[3:])
        latents = Folder.at(uri if place.startswith("../") else place)
        try:
            digest = latents.digest
        except IncompleteError as error:
            raise IncompleteError(
                f"{self.folder.uri} is an index of the latents in {latents.uri}: {error}; move "
                "both directories together, or run `audiocalm shard` again"
            ) from error
        if digest != self.card["inputs"]["latents"]:
            raise IncompleteError(
                f"{latents.uri} was written again after {self.folder.uri}; run `audiocalm shard` "
                "again"
            )
        return latents

    def _latent_stats(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        stats = self.card.get("latent_stats") or {}
        mean = np.asarray(stats.get("mean", ()), dtype=np.float32)
        std = np.asarray(stats.get("std", ()), dtype=np.float32)
        if mean.ndim != 1 or not len(mean) or mean.shape != std.shape or not (std > 0).all():
            raise IncompleteError(
                f"the card of {self.folder.uri} has no usable latent_stats (mean and a positive "
                "std of every channel); run `audiocalm shard` again"
            )
        return mean, std

    def _silence(self) -> NDArray[np.float32]:
        try:
            payload = base64.b64decode(self.card.get("silence", ""), validate=True)
            silence = np.frombuffer(payload, dtype="<f2").astype(np.float32)
        except (ValueError, TypeError) as error:
            raise IncompleteError(
                f"the card of {self.folder.uri} has a silence frame that is no base64 of fp16 "
                f"({error}); run `audiocalm shard` again"
            ) from error
        if silence.shape != (self.latent_dim,):
            raise IncompleteError(
                f"the card of {self.folder.uri} has a silence frame of {silence.shape[0]} values, "
                f"latents have {self.latent_dim}; run `audiocalm shard` again"
            )
        return silence
