"""Clean chaos: runs that read, quarantine and publish are killed; hostile files are read.

Kills (-9) come at random moments of a run and, in turn, before every call that makes something
last. After each, the published results must be the old ones or the new ones, whole; after a rerun
every row must be there once, clean or quarantined. Hostile files must give rows or a typed error,
the same in large and in small blocks, and as many rows as are known or can be counted apart from
the reader. Speed of the reader, on clean files and with one bad row
in every 100,000, 1,000 or 10, stands beside that of Polars' own reader in the same run: the best
of the repeats, by CPU time and by the clock.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from connectors.cleaning.outputs import published
from connectors.tables import read_batches
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._hostile_tables import REFUSED, UNKNOWN, Hostile, by_hand, spoilt

WORKER = [sys.executable, "-m", "tests.benchmarks._clean_worker"]
ROOT = Path(__file__).resolve().parents[2]
MEMORY_GIB = 6.0


def messy(path: Path, rows: int, first: int, rng: np.random.Generator, every: int = 20) -> None:
    """Write a table whose rows have an id each; one in ``every`` cannot be read."""
    faults = ("{},a", "{},a,b,c,d", '{},"a"b,c', "{},a\0b,c", "{},\udcff,é", '{},"open,c')
    lines = ["id,word,size"]
    kinds = rng.integers(len(faults), size=rows)
    bad = rng.random(rows) < 1 / every
    lines += [
        faults[kinds[i]].format(first + i) if bad[i] else f'{first + i},wörd,"{i},5"'
        for i in range(rows)
    ]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")


class Runs:
    """Runs of the worker, forked from a process that has imported what they need."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [*WORKER, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def begin(self, source: Path, folder: Path, step: int = 0) -> int:
        """Start a run; returns its process id."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{source}\t{folder}\t{step}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Wait for the run; returns its exit code, -9 if it was killed."""
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End the process that forks."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def serving() -> Iterator[Runs]:
    """Yield a `Runs` that is ended with the block."""
    runs = Runs()
    try:
        yield runs
    finally:
        runs.close()


def ids_of(folder: Path) -> list[int] | None:
    """Return every id that is published, clean or in a payload; None when nothing is."""
    found = published(folder, check=True)
    if found is None:
        return None
    clean = pl.read_parquet(found.clean_path)["id"].cast(pl.Int64).to_list()
    payloads = pl.read_parquet(found.quarantine_path)["payload"].to_list()
    return clean + [int(payload.split(b",")[0]) for payload in payloads]


def kill_runs(kills: int, rows: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill runs over two sources in turn, look at what is published, and let a rerun finish."""
    rng = np.random.default_rng(seed)
    sources, wanted = [], []
    for k in range(2):
        sources.append(folder / f"source-{k}.csv")
        messy(sources[k], rows, (k + 1) * 10 * rows, rng)
        wanted.append(list(range((k + 1) * 10 * rows, (k + 1) * 10 * rows + rows)))
    out = folder / "results"
    figures = {"kills": 0, "too_late": 0, "rows_lost": 0, "rows_doubled": 0, "torn": 0}
    with serving() as runs:
        runs.begin(sources[1], folder / "measured")
        runs.end()
        length = _timed(runs, sources[0], folder / "measured")
        before: list[int] | None = None
        turn = 0
        while figures["kills"] < kills:
            if figures["too_late"] > 10 * kills:
                raise RuntimeError("most runs ended before they could be killed")
            source, want = sources[turn % 2], wanted[turn % 2]
            step = 1 + turn // 4 % 8 if turn % 4 == 3 else 0
            turn += 1
            child = runs.begin(source, out, step)
            if not step:
                time.sleep(rng.uniform(0, length))
                if _alive(child):
                    os.kill(child, signal.SIGKILL)
            # Only a run that died of it counts: one that had ended was not killed.
            figures["kills" if runs.end() == -signal.SIGKILL else "too_late"] += 1
            seen = ids_of(out)
            figures["torn"] += seen is not None and sorted(seen) not in (want, before)
            figures["torn"] += seen is None and before is not None
            length = _timed(runs, source, out)
            after = ids_of(out) or []
            figures["rows_lost"] += len(set(want) - set(after))
            figures["rows_doubled"] += len(after) - len(set(after))
            before = sorted(after)
    return {**figures, "run_s": length}


def _timed(runs: Runs, source: Path, out: Path) -> float:
    """Run to the end; returns seconds. The next kill falls within as many: load comes and goes."""
    began = time.perf_counter()
    runs.begin(source, out)
    if runs.end():
        raise RuntimeError("a run that was not killed failed")
    return time.perf_counter() - began


def _alive(process: int) -> bool:
    """Whether a forked process is still running; one that ended is not yet waited for by us."""
    state = Path(f"/proc/{process}/stat")
    return state.is_file() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def read_hostile(files: Sequence[Hostile], folder: Path) -> dict[str, Any]:
    """Read files in a process of their own; counts what must not happen."""
    for file in files:
        (folder / file.name).write_bytes(file.content)
    (folder / "folder.csv").mkdir()
    names = [*(f.name for f in files), "folder.csv", "missing.csv", "x" * 300 + ".csv"]
    outcomes: dict[str, dict[str, Any]] = {}
    peak = 0.0
    while todo := [name for name in names if name not in outcomes]:
        done = subprocess.run(
            [*WORKER, "read", str(folder), str(MEMORY_GIB)], input="\n".join(todo) + "\n",
            capture_output=True, text=True, cwd=ROOT, timeout=1800, check=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        outcomes |= {line["name"]: line for line in lines if len(line) > 1}
        open_ = [line["name"] for line in lines if line["name"] not in outcomes]
        if open_:
            outcomes[open_[-1]] = {"crash": f"the process ended with {done.returncode}"}
        elif done.returncode:
            raise RuntimeError(done.stderr[-500:])
        peak = max(peak, _children_gib())
    known = {file.name: file for file in files}
    wrong = []
    for name, outcome in outcomes.items():
        file = known.get(name, Hostile(name, b"", REFUSED))
        rows = REFUSED if "refused" in outcome else outcome.get("rows")
        if file.rows not in {UNKNOWN, rows}:
            wrong.append((name, f"{rows} rows instead of {file.rows}"))
        elif file.aside not in {UNKNOWN, outcome.get("aside")}:
            wrong.append((name, f"{outcome.get('aside')} set aside instead of {file.aside}"))
        elif outcome.get("counted_apart") not in (None, outcome.get("rows")):
            wrong.append((name, f"{rows} rows instead of {outcome['counted_apart']} lines"))
        elif outcome.get("same_in_small_blocks") not in (None, True):
            wrong.append((name, f"in small blocks: {outcome['same_in_small_blocks']}"))
    crashes = [(name, o["crash"]) for name, o in outcomes.items() if "crash" in o]
    return {
        "hostile_files": len(outcomes),
        "crashes": len(crashes),
        "wrong_counts": len(wrong),
        "known_counts": sum(f.rows != UNKNOWN for f in files)
        + sum(o.get("counted_apart") is not None for o in outcomes.values()),
        "refused": sum("refused" in o for o in outcomes.values()),
        "hostile_rows": sum(o.get("rows", 0) for o in outcomes.values()),
        "hostile_rows_aside": sum(o.get("aside", 0) for o in outcomes.values()),
        "hostile_rows_lost": sum(o.get("lost", 0) for o in outcomes.values()),
        "hostile_rows_doubled": sum(o.get("doubled", 0) for o in outcomes.values()),
        "hostile_peak_gib": peak,
        "faults": dict(crashes + wrong),
    }


def _children_gib() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def speeds(rows: int, repeats: int, seed: int, folder: Path) -> dict[str, float]:
    """Return rows a CPU second and a second: Polars' reader, ours, ours with bad rows."""
    rng = np.random.default_rng(seed)
    words = np.array(["alice", "bob smith", "carol jones", "dave"])
    frame = pl.DataFrame({
        "id": np.arange(rows),
        "name": words[rng.integers(4, size=rows)],
        "amount": rng.normal(100, 20, rows).round(2),
        "city": np.array(["Oslo", "Bergen", "Trondheim"])[rng.integers(3, size=rows)],
        **{c: rng.integers(10**9, size=rows) for c in "abcd"},
    })  # fmt: skip
    frame.write_csv(folder / "clean.csv")
    frame.write_csv(folder / "quoted.csv", quote_style="always")
    frame.write_ndjson(folder / "clean.jsonl")
    frame.write_parquet(folder / "clean.parquet")
    for name, every in (("few", 100_000), ("many", 1000), ("most", 10)):
        for kind in ("clean", "quoted"):
            lines = (folder / f"{kind}.csv").read_bytes().splitlines()
            for i in range(every, len(lines), every):
                lines[i] += b",more"
            (folder / f"{kind}-{name}.csv").write_bytes(b"\n".join(lines) + b"\n")
    schema = dict.fromkeys(frame.columns, pl.String)
    ways: dict[str, Any] = {
        "polars_csv": lambda: pl.read_csv(folder / "clean.csv", infer_schema=False).height,
        "polars_quoted": lambda: pl.read_csv(folder / "quoted.csv", infer_schema=False).height,
        "polars_jsonl": lambda: pl.read_ndjson(folder / "clean.jsonl", schema=schema).height,
        "polars_parquet": lambda: (
            pl.read_parquet(folder / "clean.parquet").select(pl.all().cast(pl.String)).height
        ),
    }
    names = ("clean.csv", "quoted.csv", "clean.jsonl", "clean.parquet", "clean-few.csv",
             "clean-many.csv", "clean-most.csv", "quoted-few.csv", "quoted-many.csv",
             "quoted-most.csv")  # fmt: skip
    for name in names:
        ways[f"ours_{name.replace('-', '_').replace('.', '_')}"] = lambda path=folder / name: sum(
            batch.rows_in for batch in read_batches(path)
        )
    figures = {}
    for key, way in ways.items():
        times = []
        for _ in range(repeats):
            with stopwatch() as took:
                count = way()
            if count != rows:
                raise RuntimeError(f"{key}: {count} rows instead of {rows}")
            times.append(took)
        figures[f"{key}_rows_cpu_s"] = rows / min(t.cpu for t in times)
        figures[f"{key}_rows_s"] = rows / min(t.wall for t in times)
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("clean-chaos", __doc__.splitlines()[0])
    made.add_argument("--kills", type=int, default=0, help="runs to kill (default 24)")
    made.add_argument("--files", type=int, default=0, help="spoilt files (default 440)")
    args = made.parse_args(argv)
    kills = args.kills or (3 if args.smoke else 24)
    count = args.files or (22 if args.smoke else 440)
    sized = 5_000 if args.smoke else 200_000
    with tempfile.TemporaryDirectory(prefix="clean-chaos-") as name:
        folder = Path(name)
        for part in ("runs", "hostile", "speed"):
            (folder / part).mkdir()
        figures = kill_runs(kills, sized, args.seed, folder / "runs")
        large = ("large-", "one-line", "keys", "quote")
        files = [f for f in by_hand() if not (args.smoke and f.name.startswith(large))]
        files += spoilt(np.random.default_rng(args.seed), count)
        figures |= read_hostile(files, folder / "hostile")
        figures |= speeds(5_000 if args.smoke else 1_000_000, 1 if args.smoke else 5, args.seed,
                          folder / "speed")  # fmt: skip
    faults = figures.pop("faults")
    if faults:
        table("what went wrong", ("file", "what"), list(faults.items())[:40])
    table(
        "clean-chaos",
        ("figure", "value"),
        [(key, value) for key, value in figures.items()],
        note="speeds: rows of 8 columns, best of the repeats",
    )
    emit({**figures, "faults": faults}, args)


if __name__ == "__main__":
    run_program("clean-chaos", main)
