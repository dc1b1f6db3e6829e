"""Images: hostile files in the sandbox, features, likeness in all positions, the reference."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.cleaning.images import wire
from tasks.cleaning.images.checks import ImageCheckConfig, check_images
from tasks.cleaning.images.decode import DecodedImage, ImageRefusedError, decode
from tasks.cleaning.images.features import FEATURES, measure, measure_spoilt
from tasks.cleaning.images.likeness import LikenessConfig, hashes, positions, twins
from tasks.cleaning.images.limits import ImageLimits
from tasks.cleaning.images.reference import (
    ImageReference,
    ImageReferenceError,
    learn_reference,
)
from tasks.cleaning.images.sandbox import ROOT, MeasuredImage, Sandbox, SandboxError
from tests.benchmarks import clean_images
from tests.benchmarks._hostile_images import EITHER, by_hand, picture, png, stored, turned_over
from tests.benchmarks._spoilt_images import made_up_line
from tests.processes import alive, unmeasured, wait_for


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as made:
        yield made


def refusal(sandbox, data):
    with pytest.raises(ImageRefusedError) as caught:
        sandbox.measure(data)
    return caught.value


def test_hostile_files_are_decoded_or_refused_with_the_reason(sandbox):
    files = list(by_hand())
    assert len(files) > 90
    wrong = []
    for one in files:
        try:
            sandbox.measure(one.content)
            rule = ""
        except ImageRefusedError as error:
            rule = error.rule
        if one.rule not in {EITHER, rule} or rule in {"crashed", "timeout", "out-of-memory"}:
            wrong.append((one.name, rule))
    assert wrong == []


def test_files_turned_over_lose_no_worker(sandbox):
    rules = set()
    for one in turned_over(3, 100):
        try:
            assert all(np.isfinite(list(sandbox.measure(one.content).features.values())))
        except ImageRefusedError as error:
            rules.add(error.rule)
    assert "broken" in rules
    assert rules <= {"broken", "wrong-format", "too-many-pixels", "too-small", "many-frames"}


def test_the_same_picture_in_any_container_has_the_same_pixels(sandbox):
    gray = picture(np.random.default_rng(4))
    rgb = np.stack([gray] * 3, 2)
    palette = Image.fromarray(gray).convert("P")
    files = [
        stored(gray, "PNG"),
        stored(rgb, "PNG"),
        stored(gray, "BMP"),
        stored(rgb, "TIFF", compression="tiff_lzw"),
        stored(rgb, "WEBP", lossless=True),
        stored(palette, "PNG"),
        stored(Image.fromarray(rgb).convert("RGBA"), "PNG"),
    ]
    assert len({sandbox.measure(data).facts["digest"] for data in files}) == 1
    assert np.array_equal(sandbox.pixels(files[3]), gray)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright_by_exif(sandbox, orientation):
    rgb = np.zeros((40, 64, 3), np.uint8)
    rgb[:10, :20, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = Image.fromarray(rgb)
    if orientation > 1:
        inverse = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
                   4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
                   6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
                   8: Image.Transpose.ROTATE_270}[orientation]  # fmt: skip
        lying = lying.transpose(inverse)
    assert np.array_equal(sandbox.pixels(stored(lying, "PNG", exif=exif)), rgb)


def test_deep_images_keep_their_levels(sandbox):
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    assert np.array_equal(sandbox.pixels(stored(deep, "PNG")), deep)
    found = sandbox.measure(stored(deep, "TIFF"))
    assert found.facts["bits"] == 16
    assert found.features["mean"] == pytest.approx(deep.mean() / 257)


def test_a_thumbnail_holds_nothing_of_the_file(sandbox):
    exif = Image.Exif()
    exif[0x010F] = "secret-maker"
    data = stored(picture(np.random.default_rng(0), 400), "JPEG", exif=exif)
    small = sandbox.thumbnail(data)
    assert max(Image.open(io.BytesIO(small)).size) == 160
    assert b"secret" not in small


def bomb():
    return png(5_000, 5_000, zlib.compress(bytes(5_000 * 5_001), 1))


def test_out_of_memory_time_and_crash_cost_one_image():
    good = stored(picture(np.random.default_rng(1)), "PNG")
    with Sandbox(ImageLimits(memory_mib=384, max_pixels=10**8), workers=1) as small:
        large = stored(np.zeros((5_000, 5_000, 3), np.uint8), "PNG", compress_level=1)
        assert refusal(small, large).rule == "out-of-memory"
        assert small.measure(good).facts["width"] == 64
    with Sandbox(ImageLimits(wall_seconds=0.01), workers=1) as hurried:
        assert refusal(hurried, bomb()).rule == "timeout"
    with Sandbox(workers=1) as killed:
        killed.measure(good)
        killed._all[0]._process.send_signal(signal.SIGSEGV)
        assert killed.measure(good).facts["width"] == 64  # a fresh worker tried once more
        worker = killed._all[0]._process
        os.kill(worker.pid, signal.SIGSTOP)
        threading.Timer(0.3, lambda: os.kill(worker.pid, signal.SIGKILL)).start()
        assert killed.measure(good).facts["width"] == 64


def test_a_worker_that_cannot_start_is_no_fault_of_the_image(monkeypatch):
    monkeypatch.setattr("tasks.cleaning.images.sandbox.sys.executable", "/bin/false")
    with Sandbox(workers=1) as broken, pytest.raises(SandboxError, match="before its first image"):
        broken.measure(b"x")


CONFINED = """
import json, os, resource, socket, sys
from tasks.cleaning.images import confine
from tasks.cleaning.images.limits import ImageLimits
confine.limit_process(ImageLimits())
held = confine.forbid_system_calls()
refused = []
for name, call in {
    "open": lambda: open("/etc/hostname"), "write": lambda: open("/tmp/x", "w"),
    "socket": socket.socket, "fork": os.fork, "exec": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "limit": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU),
}.items():
    try:
        call()
    except PermissionError:
        refused.append(name)
print(json.dumps([held, refused]), flush=True)
os._exit(0)
"""


def test_a_confined_process_has_neither_files_nor_network_nor_children():
    done = subprocess.run(
        [sys.executable, "-c", CONFINED],
        cwd=ROOT, env=unmeasured(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    held, refused = json.loads(done.stdout)
    if not held:
        pytest.skip("this machine has no seccomp")
    assert refused == ["open", "write", "socket", "fork", "exec", "kill", "limit"]


def test_the_filter_is_in_force_in_workers(sandbox):
    sandbox.measure(stored(picture(np.random.default_rng(1)), "PNG"))
    worker = sandbox._all[0]
    status = Path(f"/proc/{worker._process.pid}/status").read_text()
    assert ("Seccomp:\t2" in status) == worker.filtered


PARENT = """
import sys, time
from tasks.cleaning.images.sandbox import Sandbox
with Sandbox(workers=1) as sandbox:
    sandbox.measure(open(sys.argv[1], "rb").read())
    print(sandbox._all[0]._process.pid, flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(stored(picture(np.random.default_rng(1)), "PNG"))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(file)],
        cwd=ROOT, env=unmeasured(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with parent:
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.kill()
    wait_for(lambda: not alive(worker), "the worker outlived its parent")


def test_frames_are_refused_before_they_are_taken():
    for head in (
        wire.HEAD.pack(b"XXXX", 2, 0),
        wire.HEAD.pack(wire.MAGIC, 2**31, 0),
        wire.HEAD.pack(wire.MAGIC, 2, 2**60),
        wire.HEAD.pack(wire.MAGIC, 2, 0) + b"[]",
        wire.HEAD.pack(wire.MAGIC, 9, 0) + b"{}",
        wire.HEAD.pack(wire.MAGIC, 2, 5) + b"{}abc",
        b"PI",
    ):
        with pytest.raises(wire.WireError):
            wire.receive(io.BytesIO(head), 1_000)


def test_limits_that_no_image_could_keep_are_refused():
    for wrong in ({"formats": ("GIF",)}, {"formats": ()}, {"memory_mib": 10}, {"wall_seconds": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ImageLimits(**wrong)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\0"]))
def test_any_bytes_are_decoded_or_refused(data, start):
    with pytest.raises(ImageRefusedError):
        decode(start + data, ImageLimits())


def image_of(gray):
    return DecodedImage(gray, {})


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(8, 40), columns=st.integers(8, 40),
    depth=st.sampled_from([np.uint8, np.uint16]), seed=st.integers(0, 999), flat=st.booleans(),
)  # fmt: skip
def test_features_are_finite_and_within_their_ranges(rows, columns, depth, seed, flat):
    rng = np.random.default_rng(seed)
    most = np.iinfo(depth).max
    gray = rng.integers(0, most, (rows, columns), dtype=depth, endpoint=True)
    gray[:] = gray[0, 0] if flat else gray
    found, small = measure(image_of(gray))
    assert set(found) == set(FEATURES)
    assert np.isfinite(list(found.values())).all()
    assert 0 <= found["p01"] <= found["p50"] <= found["p99"] <= 255
    assert 0 <= found["entropy"] <= 8
    assert small.shape == (64, 64)


def test_sharpness_knows_blur_and_neither_contrast_nor_level():
    gray = picture(np.random.default_rng(2), 128)
    sharp = measure(image_of(gray))[0]
    calm = measure(image_of((gray // 2 + 60).astype(np.uint8)))[0]
    blurred = [f for name, f in measure_spoilt(image_of(gray)) if name == "blur"]
    assert abs(calm["sharp1_rows"] - sharp["sharp1_rows"]) < 0.05
    assert blurred[0]["sharp1_rows"] < sharp["sharp1_rows"] - 0.5


def small_images(seed, n):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (n, 64, 64)).astype(np.uint8)


def test_every_position_is_a_near_duplicate_of_the_first():
    small = small_images(0, 6)
    turned = np.stack([each[2] for each in positions(small)])
    found = twins([str(i) for i in range(13)], np.concatenate([small, turned[1:]]))
    assert {place: twin.of for place, twin in found.items()} == dict.fromkeys(range(6, 13), 2)
    assert [found[k].exact for k in range(6, 13)] == [False] * 7
    assert found[9].position == "turned by 180°"


def test_hashes_of_positions_follow_from_one():
    from tasks.cleaning.images.likeness import _signs, _turned_hashes

    small = small_images(1, 20)
    for each, hashed in zip(positions(small), _turned_hashes(_signs(small)), strict=True):
        assert np.array_equal(hashes(np.ascontiguousarray(each)), hashed)


def test_exact_copies_of_a_near_duplicate_join_its_group_and_flat_images_none():
    small = small_images(2, 2)
    flat = np.full((2, 64, 64), 9, np.uint8)
    given_ = np.concatenate([small[:1], small[:1, ::-1], small[:1, ::-1], small[1:], flat])
    found = twins(["a", "b", "b", "c", "d", "e"], given_)
    assert {k: (t.of, t.exact) for k, t in found.items()} == {1: (0, False), 2: (0, True)}
    assert twins([], np.zeros((0, 64, 64), np.uint8)) == {}
    with pytest.raises(ValueError, match="correlation"):
        LikenessConfig(correlation=0)


FACTS = {
    "width": 9,
    "height": 9,
    "format": "PNG",
    "kind": "gray",
    "bits": 8,
    "make": "",
    "model": "",
}


def drawn(rng, n, **facts):
    """Make up measured images whose numbers are exchangeable."""
    made = []
    for _ in range(n):
        numbers = dict(zip(FEATURES, rng.gamma(4.0, 2.0, len(FEATURES)).tolist(), strict=True))
        numbers |= {"dark_share": 0.0, "light_share": 0.0, "p01": 1.0, "p99": 200.0}
        digest = f"{rng.integers(1 << 62)}"
        small = rng.integers(0, 255, (64, 64)).astype(np.uint8)
        made.append(MeasuredImage(FACTS | {"digest": digest} | facts, numbers, small))
    return made


def test_the_promise_holds_over_seeds():
    """Of good images no more than alpha are flagged, in the mean over references."""
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        reference = learn_reference(drawn(rng, 99))
        shares.append(np.mean([v.p <= 0.1 for v in reference.judge(drawn(rng, 200))]))
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) <= 0.1 + 3 * error
    assert np.mean(shares) >= 0.05  # neither does it flag nothing


def test_a_reference_is_kept_as_json_and_judges_the_same():
    rng = np.random.default_rng(5)
    reference = learn_reference([*drawn(rng, 30), *drawn(rng, 1, width=10)])
    again = ImageReference.from_json(reference.to_json())
    new = drawn(rng, 20)
    assert again.judge(new) == reference.judge(new)
    assert reference.promised(0.01) == pytest.approx(1 / 32)
    odd = again.judge([*drawn(rng, 1, height=10), *drawn(rng, 1, make="Acme")])
    assert [(v.rule, v.p) for v in odd] == [
        ("wrong-size", pytest.approx(2 / 32)),  # one reference image has a size of its own, too
        ("wrong-camera", pytest.approx(2 / 32)),
    ]


@pytest.mark.parametrize("wrong", ["", "{}", "[]", '{"version": 9}', "[" * 99_999, "null"])
def test_a_damaged_reference_is_refused(wrong):
    with pytest.raises(ImageReferenceError, match="learn it again"):
        ImageReference.from_json(wrong)


@pytest.mark.parametrize("change", [
    {"vectors": [[1.0]]}, {"far": [-1.0] * 30}, {"spoilt": {}}, {"numbers": ["x"]},
    {"far": ["a"] * 30}, {"sizes": 3}, {"spoilt": {"blur": [[1]], "dark": [], "light": []}},
])  # fmt: skip
def test_a_reference_whose_numbers_do_not_fit_is_refused(change):
    said = json.loads(learn_reference(drawn(np.random.default_rng(0), 30)).to_json())
    with pytest.raises(ImageReferenceError):
        ImageReference.from_json(json.dumps(said | change))


def test_a_reference_needs_images():
    with pytest.raises(ImageReferenceError, match="19 good images"):
        learn_reference(drawn(np.random.default_rng(0), 19))


def test_without_a_reference_only_what_is_certain_is_flagged():
    rng = np.random.default_rng(6)
    images = drawn(rng, 14)
    images += drawn(rng, 1, width=300)
    black = drawn(rng, 1)[0]
    black.features["dark_share"] = 1.0
    broken = ImageRefusedError("broken", "x", "y")
    outcomes = [broken, *images, black, images[3]]
    done = check_images([f"{i}.png" for i in range(18)], outcomes)
    assert {i: f.rule.name for i, f in done.flags.items()} == {
        0: "broken", 15: "wrong-size", 16: "uniform", 17: "duplicate-of",
    }  # fmt: skip
    assert done.flags[17].observed == "the pixels of 4.png"
    assert set(done.not_judged) == {"blur", "exposure", "camera"}
    assert done.findings["rule"].to_list() == ["broken", "wrong-size", "uniform", "duplicate-of"]
    few = check_images(["a", "b"], drawn(rng, 2))
    assert few.not_judged["size"] == "fewer than 10 images"
    with pytest.raises(ValueError, match="alpha"):
        ImageCheckConfig(alpha=0)


def test_the_first_good_copy_stays():
    rng = np.random.default_rng(7)
    reference = learn_reference(drawn(rng, 150))
    good = drawn(rng, 1)[0]
    far = dict.fromkeys(FEATURES, 250.0)
    bad = MeasuredImage(good.facts, far, good.small)
    done = check_images(["bad", "good", "again"], [bad, good, good], reference)
    assert set(done.flags) == {0, 2}
    assert done.flags[2].observed == "the pixels of good"


def test_blur_and_exposure_are_named(sandbox):
    line = made_up_line(3, 60)
    images = [sandbox.measure(data, faults=k % 5 == 0) for k, data in enumerate(line.good)]
    reference = learn_reference(images[:50])
    spoilt = [
        MeasuredImage(one.facts, numbers, one.small)
        for data in line.good[55:57]
        for one in [sandbox.measure(data, faults=True)]
        for numbers in [one.faults[2][1], one.faults[5][1], one.faults[8][1]]
    ]
    verdicts = reference.judge(spoilt)
    assert [v.rule for v in verdicts] == ["dark", "light", "blur"] * 2
    assert all(v.p == pytest.approx(1 / 51) for v in verdicts)


def test_measuring_many_keeps_the_order(sandbox):
    rng = np.random.default_rng(8)
    files = [stored(picture(rng, 8 + k), "PNG") for k in range(40)]
    found = list(sandbox.measure_all(range(40), lambda k: files[k]))
    assert [(k, one.facts["width"]) for k, one in found] == [(k, 8 + k) for k in range(40)]


@pytest.mark.long
def test_smoke(capsys):
    clean_images.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "clean-images"
    assert result["hostile_wrong"] == result["hostile_workers_lost"] == 0
    assert result["near_turned_found"] == result["exact_found"] == 1.0
    assert result["good_flagged_99"] <= 0.2
    assert result["blur_2.0_flagged_99"] == 1.0
