"""Name -> place in a file, kept on disk: memory does not grow with the number of names."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

Place = tuple[int, int]  # (offset, size), bytes


def write_index(path: Path, places: Iterable[tuple[str, Place]]) -> None:
    """Writes a new index; of two places of one name the later one counts."""
    with connect(path, new=True) as connection:
        connection.execute(
            "CREATE TABLE places (name BLOB PRIMARY KEY, offset INTEGER, size INTEGER) WITHOUT ROWID"
        )
        rows = ((_key(name), *place) for name, place in places)
        connection.executemany("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", rows)
    connection.close()


class DiskIndex:
    """Looks names up in what `write_index` wrote."""

    def __init__(self, path: Path):
        self._connection = connect(path)

    def get(self, name: str) -> Place | None:
        """Returns the place of `name`, or None."""
        query = "SELECT offset, size FROM places WHERE name = ?"
        place: Place | None = self._connection.execute(query, (_key(name),)).fetchone()
        return place

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


def connect(path: Path, *, new: bool = False) -> sqlite3.Connection:
    """Opens a database that is written once, by one process, and then only read, by many."""
    if not new:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    connection = sqlite3.connect(path)
    # Whoever is killed while writing starts again from nothing, so no journal is needed.
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _key(name: str) -> bytes:
    # Names of archive members and rows need not be valid Unicode.
    return name.encode("utf-8", "surrogatepass")
