"""All clips and rejects of a discovery, on scratch disk: their splits, and their order in the plan.

Only what is asked for is in memory, however many clips there are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

from pipeline.data.corpora.file_table import FileFact
from pipeline.data.schema import SPLITS, ClipRow, Reject, clip_columns, clip_from_columns, split_of
from pipeline.data.scratch import scratch_database, sql_text
from pipeline.errors import SettingsError
from pipeline.settings import digest_of

logger = logging.getLogger(__name__)

T = TypeVar("T")
Item = tuple[ClipRow, FileFact] | Reject
"""A clip with the facts of its file, or something that is no clip."""

_ITEMS = """
CREATE TABLE items (
    number INTEGER PRIMARY KEY, corpus TEXT, is_reject INT, key TEXT UNIQUE, uri TEXT, start_s REAL,
    is_span INT, speaker TEXT, own_split INT, clip_id TEXT, recording TEXT, together TEXT,
    split TEXT, size_bytes INT, mtime_ns INT, columns TEXT, place INT, unit INT
)"""
_PAGE = 256
_ADD = (
    "INSERT INTO items (corpus, is_reject, key, uri, start_s, is_span, speaker, own_split, clip_id,"
    " recording, size_bytes, mtime_ns, columns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How clips without a declared split get one; see `schema.split_of`.

    Attributes:
        validation_share: Share for validation.
        test_share: Share for test.
        min_speakers: A corpus with fewer speakers is split by clip or file, or whole corpora would
            land in one split.
        is_declared_kept: Whether a corpus's own split wins. A clip without one then follows its
            speaker or file, and where these are in several, test before validation before train.
    """

    validation_share: float
    test_share: float
    min_speakers: int
    is_declared_kept: bool


@dataclass(frozen=True)
class Rows(Generic[T]):
    """Items of one kind of one corpus, read from disk each time."""

    catalogue: Catalogue
    corpus: str
    is_reject: bool
    read: Callable[[tuple[Any, ...]], T]

    def __len__(self) -> int:
        return self.catalogue.count(self.corpus, is_reject=self.is_reject)

    def __iter__(self) -> Iterator[T]:
        return map(self.read, self.catalogue.pages(self.corpus, is_reject=self.is_reject))


class Catalogue:
    """Items of all corpora."""

    def __init__(self) -> None:
        self._database = scratch_database()
        self._database.execute(_ITEMS)
        self._database.execute("CREATE INDEX by_corpus ON items (corpus, is_reject, number)")

    def add_clip(self, corpus: str, uri: str, row: ClipRow, fact: FileFact) -> None:
        """Take a clip.

        Args:
            corpus: Name of the corpus.
            uri: Where the corpus lies.
            row: The clip.
            fact: Size and time of its file.

        Raises:
            SettingsError: If another corpus has a clip of the same id.
        """
        key = f"clip {row.clip_id}"
        if self._has(key):
            raise SettingsError(
                f"two clips are called {row.clip_id!r}; give the corpora in the setting `corpora` "
                "names of which none begins like another"
            )
        speaker = row.speaker if row.modality == "speech" else None
        split = SPLITS.index(row.split) if row.split is not None else None
        is_span = row.start_s is not None or row.end_s is not None
        name = row.uri.removeprefix(f"{uri}/")
        recording = f"{corpus}/{unquote(name) if '://' in uri else name}"
        texts = (key, row.uri, row.start_s or 0.0, is_span)
        about = (speaker, split, row.clip_id, recording, fact.size_bytes, fact.mtime_ns)
        self._add(corpus, False, *texts, *about, json.dumps(clip_columns(row)))

    def add_reject(self, reject: Reject) -> None:
        """Take something that is no clip; the same thing may come several times."""
        columns = asdict(reject)
        key = f"reject {digest_of(columns)}"
        repeats = 0
        while self._has(key):
            repeats += 1
            key = f"reject {digest_of([columns, repeats])}"
        nothing = [None] * 6
        self._add(reject.corpus, True, key, key, 0.0, False, *nothing, json.dumps(columns))

    def clips(self, corpus: str) -> Rows[tuple[ClipRow, FileFact]]:
        """Clips of a corpus in the order in which they were read."""
        return Rows(self, corpus, False, _clip)

    def rejects(self, corpus: str) -> Rows[Reject]:
        """Rejects of a corpus in the order in which they were met."""
        return Rows(self, corpus, True, _reject)

    def count(self, corpus: str, *, is_reject: bool) -> int:
        """Number of items of one kind of a corpus."""
        query = "SELECT count(*) FROM items WHERE corpus = ? AND is_reject = ?"
        return int(self._value(query, corpus, is_reject))

    def pages(self, corpus: str, *, is_reject: bool) -> Iterator[tuple[Any, ...]]:
        """Columns, split, size and time of the items of one kind of a corpus."""
        last = 0
        while True:
            page = self._database.execute(
                "SELECT number, columns, split, size_bytes, mtime_ns FROM items"
                f" WHERE corpus = ? AND is_reject = ? AND number > ? ORDER BY number LIMIT {_PAGE}",
                (corpus, is_reject, last),
            ).fetchall()
            yield from (row[1:] for row in page)
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def assign_splits(self, corpus: str, rule: SplitRule) -> None:
        """Give every clip its split: its own, else that of what it belongs to, else the hash's."""
        self._database.create_function(
            "hashed", 1, lambda key: split_of(key, rule.validation_share, rule.test_share)
        )
        run = self._database.execute
        ours = "corpus = ? AND NOT is_reject"
        num_speakers = self._value(
            f"SELECT count(DISTINCT speaker) FROM items WHERE {ours}", corpus
        )
        by_speaker = num_speakers >= rule.min_speakers
        own = "own_split" if rule.is_declared_kept else "NULL"
        run("CREATE TABLE cut (uri TEXT PRIMARY KEY) WITHOUT ROWID")
        run("CREATE TABLE declared (together TEXT PRIMARY KEY, split INT) WITHOUT ROWID")
        run(f"INSERT INTO cut SELECT DISTINCT uri FROM items WHERE {ours} AND is_span", (corpus,))
        run(
            "UPDATE items SET together = CASE WHEN ? AND speaker IS NOT NULL THEN speaker"
            f" WHEN uri IN cut THEN recording ELSE clip_id END WHERE {ours}",
            (by_speaker, corpus),
        )
        run(
            f"INSERT INTO declared SELECT together, max({own}) FROM items"
            f" WHERE {ours} AND {own} IS NOT NULL GROUP BY together",
            (corpus,),
        )
        names = " ".join(f"WHEN {number} THEN '{name}'" for number, name in enumerate(SPLITS))
        run(
            f"UPDATE items SET split = coalesce(CASE coalesce({own}, (SELECT split FROM declared"
            f" WHERE declared.together = items.together)) {names} END, hashed(together))"
            f" WHERE {ours}",
            (corpus,),
        )
        run("DROP TABLE cut")
        run("DROP TABLE declared")
        self._warn_if_untrained(corpus, own)

    def _warn_if_untrained(self, corpus: str, own: str) -> None:
        num_clips, num_trained, num_open = self._database.execute(
            f"SELECT count(*), coalesce(sum(split = 'train'), 0), coalesce(sum({own} IS NULL), 0)"
            " FROM items WHERE corpus = ? AND NOT is_reject",
            (corpus,),
        ).fetchone()
        if num_clips and not num_trained and num_open:
            logger.warning(
                "%s: no clip is left for training; %d of %d declare no split and are held out with "
                "their speaker or file, or by the hash; declare which are for training",
                corpus,
                num_open,
                num_clips,
            )

    def place_in_units(self, planned: Iterable[tuple[str, int]]) -> int:
        """Fix the order of all items, and put those that were planned before into their units.

        The order is that of the corpora's names, then clips before rejects, then as they were read.

        Args:
            planned: Keys with the numbers of their units.

        Returns:
            The number of the next new unit.
        """
        run = self._database.execute
        run(
            "UPDATE items SET unit = NULL, place = ordered.place FROM (SELECT number AS it,"
            " row_number() OVER (ORDER BY corpus, is_reject, number) AS place FROM items)"
            " AS ordered WHERE ordered.it = items.number"
        )
        run("DROP TABLE IF EXISTS planned")
        run("CREATE TABLE planned (key TEXT PRIMARY KEY, unit INT) WITHOUT ROWID")
        self._database.executemany("INSERT OR REPLACE INTO planned VALUES (?, ?)", planned)
        run("UPDATE items SET unit = planned.unit FROM planned WHERE planned.key = items.key")
        return int(self._value("SELECT coalesce(max(unit), -1) + 1 FROM planned"))

    def count_items(self) -> int:
        """Number of all items."""
        return int(self._value("SELECT count(*) FROM items"))

    def fresh(self) -> Iterator[tuple[int, str | None, int]]:
        """Items in no unit yet, spans of a file together in the order of time.

        Gives their numbers, URIs (None for a reject) and sizes of files in bytes. Files stay in
        the order of their first span.
        """
        order = self._ordered("WHERE unit IS NULL", "")
        return iter(
            self._database.execute(
                f"SELECT items.number, CASE WHEN is_reject THEN NULL ELSE uri END,"
                f" coalesce(size_bytes, 0) FROM {order} CROSS JOIN items"
                f" ON items.number = {order}.number ORDER BY {order}.rowid"
            )
        )

    def assign(self, units: Iterable[tuple[int, int]]) -> None:
        """Put items into units, given unit and number of the item."""
        self._database.executemany("UPDATE items SET unit = ? WHERE number = ?", units)

    def last_unit(self) -> int:
        """The greatest number of a unit; -1 where there is none."""
        return int(self._value("SELECT coalesce(max(unit), -1) FROM items"))

    def keys(self) -> Iterator[tuple[int, str]]:
        """Unit and key of all items, in the order of both."""
        return iter(self._database.execute("SELECT unit, key FROM items ORDER BY unit, place"))

    def units(self) -> Iterator[tuple[int, Item]]:
        """All items with the number of their unit, unit by unit; spans of a file together."""
        order = self._ordered("", "unit, ")
        for row in self._database.execute(
            f"SELECT unit, is_reject, columns, split, size_bytes, mtime_ns FROM {order}"
            f" CROSS JOIN items ON items.number = {order}.number ORDER BY {order}.rowid"
        ):
            yield row[0], _reject(row[2:]) if row[1] else _clip(row[2:])

    def _ordered(self, where: str, within: str) -> str:
        """Name of a table with the numbers of items by file and time."""
        self._database.execute("DROP TABLE IF EXISTS ordered")
        self._database.execute(
            "CREATE TABLE ordered AS SELECT number FROM (SELECT number, unit, start_s, place,"
            f" min(place) OVER (PARTITION BY {within}uri) AS first FROM items {where})"
            f" ORDER BY {within}first, start_s, place"
        )
        return "ordered"

    def _has(self, key: str) -> bool:
        return bool(self._value("SELECT count(*) FROM items WHERE key = ?", key))

    def _value(self, query: str, *values: object) -> Any:
        taken = [sql_text(value) if isinstance(value, str) else value for value in values]
        return self._database.execute(query, taken).fetchone()[0]

    def _add(self, *values: Any) -> None:
        taken = [sql_text(value) if isinstance(value, str) else value for value in values]
        self._database.execute(_ADD, taken)


def _clip(row: tuple[Any, ...]) -> tuple[ClipRow, FileFact]:
    columns, split, size_bytes, mtime_ns = row
    clip = clip_from_columns(json.loads(columns))
    return replace(clip, split=split or clip.split), FileFact(size_bytes, mtime_ns)


def _reject(row: tuple[Any, ...]) -> Reject:
    return Reject(**json.loads(row[0]))
