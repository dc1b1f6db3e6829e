"""Profiles: every cause is provoked and named; tables and memory add up; the report is one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from kernels.runtime.causes import Facts, causes_of
from kernels.runtime.profile_report import report_html, size_in_words
from kernels.runtime.profiler import ProfileConfig, Profiler, core_wait_seconds, profiled
from kernels.runtime.runner import run
from kernels.runtime.trace import STEP, Trace, parse_trace, read_trace
from tests.kernels.runtime.small import batches, config, make_model, squared

ONE = ProfileConfig(warm_up=1, steps=1)


def undisturbed(folder, step):
    """Profile one call; on a busy machine several, to return one that hardly missed a core.

    A turn that the scheduler gives to others is longer than such a call.
    """
    found = []
    for attempt in range(10):
        with torch.random.fork_rng(devices=[]), profiled(folder / f"{attempt}", ONE) as profiler:
            for _ in range(2):
                step()
                profiler.step()
        missed = profiler.result.facts.core_wait_seconds / profiler.result.step_seconds
        found.append((missed, attempt, profiler.result))
        if missed < 0.1:
            break
    return min(found)[-1]


def causes_in(folder, step):
    """Return all causes of lost time in a call by name, however small their rank."""
    return all_causes(undisturbed(folder, step))


def all_causes(result):
    trace = read_trace(result.trace_path)
    assert len(result.causes) <= 3
    assert [c.seconds for c in result.causes] == sorted(
        (c.seconds for c in result.causes), reverse=True
    )
    return {c.name: c for c in causes_of(trace, result.facts, at_most=20)}


def tiny():
    x = torch.ones(4)
    for _ in range(400):
        x = x.add_(1.0)


def transposed():
    x = torch.ones(600, 600)
    for _ in range(20):
        x = x.t().contiguous()


def widened():
    x = torch.ones(600, 600)
    for _ in range(20):
        x = x.double().float()


def reading():
    for number in torch.ones(400):
        float(number)


def in_python():
    until = time.thread_time() + 0.02
    while time.thread_time() < until:
        pass


def looped_optimizer():
    parameters = [nn.Parameter(torch.ones(8)) for _ in range(40)]
    for parameter in parameters:
        parameter.grad = torch.ones(8)
    torch.optim.AdamW(parameters, foreach=False, fused=False).step()


def recomputing():
    x = torch.ones(512, 256, requires_grad=True)
    layer = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 256))
    checkpoint(layer, x, use_reentrant=False).sum().backward()


@pytest.mark.parametrize(
    ("step", "name", "said"),
    [
        (tiny, "Many tiny operators", "calls a step take below 10 µs"),
        (transposed, "Copies and conversions", "laid out anew"),
        (widened, "Copies and conversions", "from one number format to another"),
        (reading, "Reading results out", "400 times a step"),
        (in_python, "Python between operators", "no operator ran"),
        (looped_optimizer, "Optimizer not fused", "operators; one kernel"),
        (recomputing, "Activations computed again", "3 operators of the forward pass"),
    ],
)
def test_a_cause_is_named(tmp_path, step, name, said):
    result = undisturbed(tmp_path, step)
    cause = all_causes(result)[name]
    assert said in cause.evidence
    with_core = 1 - min(result.facts.core_wait_seconds / result.step_seconds, 1.0)
    assert cause.share > 0.05 * with_core
    assert f"{cause.share:.0%}" in str(cause)


def test_the_fused_optimizer_is_no_cause(tmp_path):
    parameter = nn.Parameter(torch.ones(8))
    optimizer = torch.optim.AdamW([parameter], fused=True)

    def step():
        parameter.grad = torch.ones(8)
        optimizer.step()

    assert "Optimizer not fused" not in causes_in(tmp_path, step)


def test_a_run_is_profiled_by_a_callback(tmp_path):
    seen = []
    profiler = Profiler(tmp_path, ProfileConfig(warm_up=3, steps=2, name="run"), then=seen.append)

    def slow(index):
        time.sleep(0.01)
        return batches(index)

    run(make_model(), profiler.reading(slow), squared, config(7), callbacks=[profiler])
    result = profiler.result
    assert seen == [result]
    assert result.steps == 2
    assert sum(result.phases.values()) == pytest.approx(result.step_seconds)
    assert result.phases["data"] >= 0.01
    assert result.facts.stall_seconds >= 0.02
    assert result.facts.plain_step_seconds > 0.01
    waiting = next(c for c in result.causes if c.name == "Waiting for data")
    assert waiting.seconds == pytest.approx(result.phases["data"])
    rows = {(r.name, r.shapes): r for r in result.operators}
    # Two matrix products forward and, of the inputs' gradients, one less backward.
    assert rows["aten::addmm", "8, 16×4, 4×8"].calls == 1
    assert rows["aten::_fused_adamw_", rows_shape(rows)].phase == "optimizer"
    assert sum(r.share for r in result.operators) <= 1
    assert (tmp_path / "run.trace.json.gz").is_file()
    assert (tmp_path / "run.html").read_text().count("Waiting for data") == 1


def rows_shape(rows):
    return next(shapes for name, shapes in rows if name == "aten::_fused_adamw_")


def test_the_same_weights_with_and_without(tmp_path):
    ends = []
    for callbacks in ([], [Profiler(tmp_path, ProfileConfig(warm_up=2, steps=1))]):
        model = make_model()
        run(model, batches, squared, config(5), callbacks=callbacks)
        ends.append(nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*ends)


def test_memory_is_told_by_what_made_it(tmp_path):
    def step():
        x = torch.ones(64, 1024)  # 256 KiB
        a = x * 2
        del x
        b = torch.cat([a, a, a])  # 768 KiB
        del a, b

    with Profiler(tmp_path, ONE) as profiler:
        for _ in range(2):
            step()
            profiler.step()
    memory = profiler.result.memory
    assert memory.peak_bytes == 2**20
    held = {h.name.split(" of ")[0]: h.bytes for h in memory.holders}
    assert held == {"aten::cat": 768 * 2**10, "aten::mul": 256 * 2**10}
    assert memory.bytes[-1] == 0
    assert max(memory.bytes) == memory.peak_bytes


def test_a_loop_that_ends_early_is_reported_with_what_was_seen(tmp_path):
    with profiled(tmp_path, ProfileConfig(warm_up=1, steps=10)) as profiler:
        for _ in range(3):
            torch.ones(8).tanh()
            profiler.step()
        kept = torch.ones(1_000).cumsum(0)  # of a step that never ends
    assert len(kept) == 1_000
    assert profiler.result.steps == 2
    assert {r.name: r.calls for r in profiler.result.operators}["aten::tanh"] == 1
    assert "aten::cumsum" not in {r.name for r in profiler.result.operators}
    assert profiler.result.memory.bytes[-1] == 0
    assert "A step took" in profiler.result.report_path.read_text()
    with profiled(tmp_path / "none", ONE) as profiler:
        profiler.step()
    assert profiler.result is None
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="nobody counts waits for a core here"
)
def test_waits_for_a_core_in_a_step_that_never_ends_do_not_count(tmp_path):
    """Two on one core: nobody can have waited for longer than the profiled steps took."""
    cores = os.sched_getaffinity(0)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(busy.pid, {min(cores)})
        with profiled(tmp_path, ProfileConfig(warm_up=1, steps=10)) as profiler:
            for _ in range(3):
                torch.ones(8).tanh()
                profiler.step()
            os.sched_setaffinity(0, {min(cores)})
            until, deadline = core_wait_seconds() + 0.2, time.monotonic() + 20
            while core_wait_seconds() < until:
                assert time.monotonic() < deadline
    finally:
        os.sched_setaffinity(0, cores)
        busy.kill()
        busy.wait()
    result = profiler.result
    assert result.facts.core_wait_seconds <= result.steps * result.step_seconds


class Outside(HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in {"link", "img", "iframe"} or "src" in given:
            self.found.append((tag, given))


def test_the_report_is_one_file_and_names_are_escaped(tmp_path):
    with profiled(tmp_path, ONE) as profiler:
        for _ in range(2):
            with torch.profiler.record_function("Optimizer.step#<script>"):
                torch.ones(3).sum()
            profiler.step()
    page = report_html(profiler.result)
    parser = Outside()
    parser.feed(page)
    assert parser.found == []
    assert profiler.result.summary in page.replace("&#39;", "'")
    assert "<script>" not in page.split("<h2>Operators</h2>")[0]
    assert page.index("Causes of lost time") < page.index("<h2>Operators</h2>")
    assert size_in_words(5 * 2**30) == "5.00 GiB"
    assert size_in_words(512) == "512 B"


def event(name, start, seconds, kind="cpu_op", thread=1):
    return {"ph": "X", "name": name, "cat": kind, "ts": start, "dur": seconds, "tid": thread}


def test_gpus_processes_and_cores_are_looked_at():
    """From a trace by hand: no GPU is needed to read one."""
    trace = parse_trace(
        [
            event(STEP, 0, 1000, "user_annotation"),
            event("cudaStreamSynchronize", 0, 100, "cuda_runtime"),
            event("gloo:all_reduce", 100, 300),
            event("kernel", 0, 400, "kernel", thread=2),
            event("kernel", 300, 300, "kernel", thread=3),
        ]
    )
    facts = Facts(core_wait_seconds=250e-6, threads=8, cores=2)
    found = {c.name: c for c in causes_of(trace, facts, at_most=20)}
    assert found["GPU without work"].share == pytest.approx(0.4)
    assert found["Waiting for other processes"].share == pytest.approx(0.3)
    assert found["Reading results out"].share == pytest.approx(0.1)
    assert found["Waiting for a core"].share == pytest.approx(0.25)
    assert "torch.set_num_threads(2)" in found["Waiting for a core"].fix
    # 600 µs without an operator, a quarter of them without a core.
    assert found["Python between operators"].share == pytest.approx(0.45)
    assert causes_of(Trace(), facts) == ()
    assert core_wait_seconds() >= 0


def test_an_operator_without_a_core_does_not_hide_many_tiny_ones():
    events = [event("aten::add", 10 * k, 5) for k in range(100)]
    events += [event(STEP, 0, 4000, "user_annotation"), event("aten::mm", 1000, 3000)]
    trace = parse_trace(events)
    without = Facts(core_wait_seconds=2900e-6)
    found = {c.name: c for c in causes_of(trace, without, at_most=20)}
    assert found["Many tiny operators"].share == pytest.approx(500 / 4000)
    # The same operator, where it was work.
    assert "Many tiny operators" not in {c.name for c in causes_of(trace, Facts(), at_most=20)}


def test_a_file_that_is_no_trace_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="no Chrome trace"):
        read_trace(path)


@pytest.mark.parametrize("given", [{"warm_up": 0}, {"steps": 0}, {"name": "a/b"}])
def test_settings_are_checked(given):
    with pytest.raises(ValueError, match=r"profile\."):
        ProfileConfig(**given)
