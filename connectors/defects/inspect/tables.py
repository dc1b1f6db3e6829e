"""The tables of a line: images, what is told and forgotten, the watch, who has what."""

from __future__ import annotations

from connectors.defects.inspect.review_queue import QUEUE_TABLE

TABLES = (
    """
CREATE TABLE IF NOT EXISTS images (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  stat TEXT NOT NULL,
  digest TEXT NOT NULL,
  time TEXT NOT NULL,
  verdict TEXT NOT NULL CHECK (verdict IN ('OK', 'NG', 'REVIEW', 'QUARANTINED')),
  edge TEXT,
  refusal TEXT,
  payload BLOB,
  heat BLOB,
  central TEXT,
  final TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS judged_once ON images (digest) WHERE verdict != 'QUARANTINED';
CREATE INDEX IF NOT EXISTS by_content ON images (name, digest);
CREATE INDEX IF NOT EXISTS by_stat ON images (name, stat);
CREATE INDEX IF NOT EXISTS doubtful ON images (seq) WHERE verdict = 'REVIEW' AND central IS NULL;
CREATE INDEX IF NOT EXISTS with_payload ON images (seq) WHERE payload IS NOT NULL;
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS of_image ON events (seq);
CREATE TABLE IF NOT EXISTS forgotten (
  verdict TEXT NOT NULL, final TEXT NOT NULL, rule TEXT NOT NULL, images INTEGER NOT NULL,
  PRIMARY KEY (verdict, final, rule)
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT OR IGNORE INTO facts VALUES ('id', lower(hex(randomblob(8))));
CREATE TABLE IF NOT EXISTS watched (
  id INTEGER PRIMARY KEY AUTOINCREMENT, numbers TEXT NOT NULL, small BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS alarms (
  id INTEGER PRIMARY KEY AUTOINCREMENT, about TEXT NOT NULL, last INTEGER,
  times INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS cursors (consumer TEXT PRIMARY KEY, at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS refusals (
  consumer TEXT NOT NULL, event INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (consumer, event)
);
"""
    + QUEUE_TABLE
)
