"""What the knowledge tests share."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from llmagent_ros.experiments.bench.crash import HashEmbedder
from llmagent_ros.knowledge.embedding import Embedder
from llmagent_ros.knowledge.schema import to_blob

__all__ = ["OLD_LESSONS", "HashEmbedder", "make_bundle", "make_version_1"]

VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE skills (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, description TEXT NOT NULL, instructions TEXT NOT NULL,
    contract TEXT NOT NULL, lessons TEXT NOT NULL, attempts INTEGER NOT NULL, successes INTEGER NOT NULL,
    digest TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL, parents TEXT NOT NULL
) STRICT;
CREATE INDEX skills_contract ON skills (contract);
CREATE INDEX skills_digest ON skills (digest);
CREATE TABLE texts (
    vector INTEGER PRIMARY KEY AUTOINCREMENT, skill INTEGER NOT NULL REFERENCES skills (row) ON DELETE CASCADE,
    text TEXT NOT NULL, embedding BLOB NOT NULL, UNIQUE (skill, text)
) STRICT;
PRAGMA user_version = 1;
"""
OLD_LESSONS = ["clear ahead under 0.3: not forward (failed 4 of 6)", "keep (a bit) left", "odd (failed 7 of 2)"]


def make_bundle(folder: Path, value: float = 1.0) -> str:
    """A small sound bundle; equal values give equal digests."""
    import torch

    from llmagent_ros.bundle import save_bundle

    return save_bundle(
        folder, adapter=None, adapter_config={}, critic={"w": torch.full((4, 4), value)}, meta={"base_digest": "test"}
    )


def make_version_1(folder: Path, embedder: Embedder) -> None:
    """A store as version 1 wrote it: the skills red, with OLD_LESSONS, and blue."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "skills.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(VERSION_1)
        meta = [("store", "0" * 32), ("generation", "3"), ("embedder", embedder.digest)]
        database.executemany("INSERT INTO meta VALUES (?, ?)", meta)
        for row, (name, lessons) in enumerate((("red", OLD_LESSONS), ("blue", [])), start=1):
            texts = '["do"]', "sim", json.dumps(lessons)
            values = (row, name, f"go {name}", *texts, 4 * row, 3 * row, "", 1.5, 2.5, '["p"]')
            database.execute(f"INSERT INTO skills VALUES ({', '.join('?' * 12)})", values)
            for text in (f"go {name}", "do"):
                blob = to_blob(embedder.embed([text])[0])
                database.execute("INSERT INTO texts (skill, text, embedding) VALUES (?, ?, ?)", (row, text, blob))
