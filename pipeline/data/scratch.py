"""Tables on scratch disk, for facts about every file and clip that do not fit into memory."""

from __future__ import annotations

import sqlite3
from itertools import count


def scratch_database(cache_kib: int = 16 * 1024) -> sqlite3.Connection:
    """An empty SQLite database in the temporary directory, removed when it is closed.

    It holds at most `cache_kib` KiB in memory and lives in one transaction that never ends: nobody
    else reads it, and nothing of it outlives the process.
    """
    database = sqlite3.connect("", isolation_level=None)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{cache_kib}"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("PRAGMA temp_store = FILE")
    database.execute("BEGIN")
    return database


class ScratchMap:
    """Texts by key, in a table of a scratch database.

    Args:
        database: Scratch database in which the table is made.
    """

    _numbers = count()

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._table = f"map_{next(self._numbers)}"
        database.execute(
            f"CREATE TABLE {self._table} (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
        )

    def setdefault(self, key: str, value: str) -> str:
        """The text of a key, which is `value` if it had none."""
        added = self._database.execute(
            f"INSERT OR IGNORE INTO {self._table} VALUES (?, ?)", (sql_text(key), value)
        )
        if added.rowcount:
            return value
        found = self._database.execute(
            f"SELECT value FROM {self._table} WHERE key = ?", (sql_text(key),)
        ).fetchone()
        return str(found[0])


def sql_text(text: str) -> str | bytes:
    """A text as SQLite takes it; one with lone surrogates, which JSON can spell, as bytes.

    Bytes are equal to no text, but to the same bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text
