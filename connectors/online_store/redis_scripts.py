"""What the Redis server runs: writes that compare versions, whole or not at all.

A version is an unsigned 64-bit number, more than Redis' Lua can compare as one number: its halves
are compared one after the other. Keys: the set of indexes, n records, their n indexes (a sorted set
of ids per kind, score = when they expire), the answers. Arguments: see `arguments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from connectors.online_store.record import Record
from connectors.online_store.store import Answer

APPLY = """
local n, all_or_none = tonumber(ARGV[1]), ARGV[2] == '1'
local expire_ms, score = tonumber(ARGV[3]), ARGV[4]
local first_answer = 2 + 2 * n

local function newer(key, value)
  local old = redis.call('GETRANGE', key, 8, 15)
  if old == '' then return true, true end
  local low, high = struct.unpack('<I4I4', value, 9)
  local old_low, old_high = struct.unpack('<I4I4', old)
  return high > old_high or (high == old_high and low > old_low), false
end

if all_or_none then
  for i = first_answer, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then return {'answered', i - first_answer} end
  end
  for i = 1, n do
    if not newer(KEYS[1 + i], ARGV[4 + i]) then return {'stale', i - 1} end
  end
end
local applied = 0
for i = 1, n do
  local key, index, value = KEYS[1 + i], KEYS[1 + n + i], ARGV[4 + i]
  local put, new = newer(key, value)
  if put then
    if expire_ms > 0 then
      redis.call('SET', key, value, 'PX', expire_ms)
    else
      redis.call('SET', key, value)
    end
    if (new or expire_ms > 0) and redis.call('ZADD', index, score, ARGV[4 + n + i]) == 1 then
      redis.call('SADD', KEYS[1], index)
    end
    applied = applied + 1
  end
end
for i = first_answer, #KEYS do
  local k = 5 + 2 * n + 2 * (i - first_answer)
  redis.call('SET', KEYS[i], ARGV[k], 'PXAT', ARGV[k + 1])
end
return {'applied', applied}
"""


def arguments(
    records: Sequence[Record],
    answers: Mapping[int, Answer],
    *,
    prefix: bytes,
    all_or_none: bool,
    expire_ms: int,
    now_ms: int,
) -> tuple[list[bytes], list[bytes]]:
    """Return the keys and arguments of ``APPLY``.

    Args:
        records: What to write.
        answers: Answers by event id.
        prefix: Begins every key.
        all_or_none: Whether one conflict stops everything.
        expire_ms: Life of a record, 0 without end.
        now_ms: Epoch milliseconds.
    """
    keys = [kinds_key(prefix)]
    keys += [record_key(prefix, record.key) for record in records]
    keys += [index_key(prefix, record.key[: record.key.index(0)]) for record in records]
    keys += [answer_key(prefix, event_id) for event_id in answers]
    score = b"%d" % (now_ms + expire_ms) if expire_ms else b"inf"
    given = [b"%d" % len(records), b"1" if all_or_none else b"0", b"%d" % expire_ms, score]
    given += [record.value for record in records]
    given += [record.key[record.key.index(0) + 1 : -2] for record in records]
    for answer in answers.values():
        given += [answer.content, b"%d" % max(answer.expires_at, 1)]
    return keys, given


def record_key(prefix: bytes, key: bytes) -> bytes:
    """Return the Redis key of a record."""
    return prefix + b":s:" + key


def index_key(prefix: bytes, kind: bytes) -> bytes:
    """Return the Redis key of the ids of a kind."""
    return prefix + b":i:" + kind


def kinds_key(prefix: bytes) -> bytes:
    """Return the Redis key of the set that holds the key of every index."""
    return prefix + b":k"


def answer_key(prefix: bytes, event_id: int) -> bytes:
    """Return the Redis key of an answer."""
    return prefix + b":a:%d" % event_id
