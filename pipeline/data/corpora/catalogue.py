"""All clips and rejects of one input, on scratch disk: their splits, and their order in the plan.

Only what is asked for is in memory, however many clips there are.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import unquote

from pipeline.data.corpora.file_table import FileFact
from pipeline.data.corpora.found import FoundItem
from pipeline.data.schema import SPLITS, ClipRow, Reject, clip_columns, clip_from_columns, split_of
from pipeline.data.scratch import scratch_database, sql_text
from pipeline.errors import SettingsError
from pipeline.settings import digest_of

logger = logging.getLogger(__name__)

_ITEMS = """
CREATE TABLE items (
    number INTEGER PRIMARY KEY, corpus TEXT, is_reject INT, key TEXT UNIQUE, uri TEXT, start_s REAL,
    is_span INT, speaker TEXT, own_split INT, clip_id TEXT, recording TEXT, together TEXT,
    split TEXT, size_bytes INT, mtime_ns INT, columns TEXT
)"""
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


class Catalogue:
    """Items of the corpora of one input."""

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

    def count(self, corpus: str, *, is_reject: bool) -> int:
        """Number of items of one kind of a corpus."""
        query = "SELECT count(*) FROM items WHERE corpus = ? AND is_reject = ?"
        return int(self._value(query, corpus, is_reject))

    def digest(self, corpus: str) -> str:
        """Digest of the clips and rejects of a corpus as they were read, without times of files."""
        whole = hashlib.sha256()
        for is_reject, *row in self._database.execute(
            "SELECT is_reject, columns, split, size_bytes, mtime_ns FROM items WHERE corpus = ?"
            " ORDER BY is_reject, number",
            (sql_text(corpus),),
        ):
            item = asdict(_reject(row)) if is_reject else clip_columns(_clip(row)[0])
            whole.update(digest_of(item).encode())
        return whole.hexdigest()

    def planned(self, corpus: str) -> Iterator[FoundItem]:
        """Items of a corpus in the order of the plan.

        Clips come before rejects, files in the order of their first row, and spans of a file in the
        order of time.
        """
        run = self._database.execute
        run("DROP TABLE IF EXISTS ordered")
        run(
            "CREATE TABLE ordered AS SELECT number FROM (SELECT number, is_reject, start_s,"
            " min(number) OVER (PARTITION BY is_reject, uri) AS first FROM items WHERE corpus = ?)"
            " ORDER BY is_reject, first, start_s, number",
            (sql_text(corpus),),
        )
        for key, is_reject, *row in run(
            "SELECT key, is_reject, columns, split, size_bytes, mtime_ns FROM ordered"
            " CROSS JOIN items ON items.number = ordered.number ORDER BY ordered.rowid"
        ):
            if is_reject:
                yield FoundItem.of_reject(key, _reject(row))
            else:
                yield FoundItem.of_clip(key, *_clip(row))

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

    def _has(self, key: str) -> bool:
        return bool(self._value("SELECT count(*) FROM items WHERE key = ?", key))

    def _value(self, query: str, *values: object) -> Any:
        taken = [sql_text(value) if isinstance(value, str) else value for value in values]
        return self._database.execute(query, taken).fetchone()[0]

    def _add(self, *values: Any) -> None:
        taken = [sql_text(value) if isinstance(value, str) else value for value in values]
        self._database.execute(_ADD, taken)


def _clip(row: Sequence[Any]) -> tuple[ClipRow, FileFact]:
    columns, split, size_bytes, mtime_ns = row
    clip = clip_from_columns(json.loads(columns))
    return replace(clip, split=split or clip.split), FileFact(size_bytes, mtime_ns)


def _reject(row: Sequence[Any]) -> Reject:
    return Reject(**json.loads(row[0]))
