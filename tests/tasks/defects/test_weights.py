"""Weights: the shipped file is what its card says, and of use; wrong files are refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from models.defect_net import DefectNet, DefectNetShape, ResnetFeatures, pooled
from tasks.defects.textures.line import LineConfig, make_line
from tasks.defects.textures.surface import draw_surface, to_pixels, varied
from tasks.defects.weights import (
    FORMAT,
    WeightsError,
    digest,
    load_mask_head,
    load_net,
    pack,
    shipped,
)

CARD = shipped().with_name("CARD.md")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def as_input(images):
    return torch.from_numpy(np.stack(images).astype(np.float32) / 255)[:, None].expand(
        -1, 3, -1, -1
    )


def fresh(seed=0, shape=None):
    torch.manual_seed(seed)
    net = DefectNet(shape)
    # Norms of a net that never saw an image say nothing: random weights get theirs.
    net.train()
    with torch.no_grad():
        for _ in range(10):
            net(torch.rand(8, 3, 64, 64))
    return net.eval()


def test_the_shipped_file_is_small_and_that_of_its_card():
    assert shipped().stat().st_size < 12e6
    assert digest() in CARD.read_text(encoding="utf-8")
    net, head = load_net(), load_mask_head()
    assert not net.training
    features = net(torch.rand(2, 3, 64, 96))
    assert [tuple(scale.shape[1:]) for scale in features.scales] == [
        (48, 16, 24),
        (96, 8, 12),
        (192, 4, 6),
    ]
    assert head(features.dense).shape == (2, 1, 16, 24)
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


def test_the_card_tells_what_a_card_must():
    text = CARD.read_text(encoding="utf-8")
    for heading in ("Data", "Recipe", "Rebuild", "Figures", "Limits", "Licence"):
        assert re.search(rf"^## {heading}", text, re.MULTILINE), heading
    assert "penstock defects pretrain" in text


def test_shipped_features_tell_surfaces_better_than_random_ones():
    rng = np.random.default_rng(77)
    surfaces = [draw_surface("metal", rng) for _ in range(12)]
    images, labels = [], []
    for label, surface in enumerate(surfaces):
        for _ in range(10):
            images.append(to_pixels(varied(surface, rng, 0.2).render((64, 64), rng)))
            labels.append(label)
    labels, few = np.array(labels), np.arange(120) % 10 < 3

    def right(net):
        with torch.no_grad():
            found = pooled(net(as_input(images))).numpy()
        found = (found - found[few].mean(0)) / (found[few].std(0) + 1e-3)
        told = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        return float(
            (told.fit(found[few], labels[few]).predict(found[~few]) == labels[~few]).mean()
        )

    assert right(load_net()) > max(right(fresh(seed)) for seed in range(3)) + 0.05


def test_the_mask_head_finds_defects_of_a_line_it_never_saw():
    line = make_line(
        LineConfig(texture="metal", ok=0, ng={"pit": 8, "crack": 8, "stain": 8}, seed=991)
    )
    net, head = load_net(), load_mask_head()
    with torch.no_grad():
        heat = head(net(as_input([s.pixels for s in line])).dense)[:, 0].numpy()
    cells = np.stack([s.mask.reshape(32, 4, 32, 4).mean((1, 3)) > 0.12 for s in line])
    assert roc_auc_score(cells.ravel(), heat.ravel()) > 0.8


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((8, (8, 12, 16)), "multiples of 8"), ((8, (8, 0, 16)), "at least 1")],
)
def test_widths_that_some_processors_cannot_train_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        DefectNetShape(*sizes)


def test_a_packed_net_comes_back_and_the_same_net_gives_the_same_file(tmp_path):
    net = fresh(3, DefectNetShape(8, (8, 24, 16), (1, 1, 1), 8))
    head = torch.nn.Conv2d(8, 1, 1)
    content = pack(net, head, {"seed": "3"})
    assert content == pack(net, head, {"seed": "3"})
    path = tmp_path / "own.safetensors"
    path.write_bytes(content)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected, found = pooled(net(pixels)), pooled(load_net(path)(pixels))
        assert torch.allclose(expected, found, atol=0.02)
        assert torch.allclose(
            head(net(pixels).dense), load_mask_head(path)(net(pixels).dense), 0, 0.01
        )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_resnet_of_torchvision_gives_its_own_scales(tmp_path, suffix):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    resnet = resnet18(weights=None).eval()
    path = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(resnet.state_dict(), path)
    else:
        save_file(resnet.state_dict(), path)
    net = load_net(path)
    assert isinstance(net, ResnetFeatures)
    pixels = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        found = net(pixels)
        mean = pixels.mean((1, 2, 3), keepdim=True)
        spread = pixels.std((1, 2, 3), keepdim=True, correction=0)
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1((pixels - mean) / (spread + 0.02)))))
        for stage, scale in zip(
            (resnet.layer1, resnet.layer2, resnet.layer3), found.scales, strict=True
        ):
            x = stage(x)
            assert torch.allclose(x, scale, atol=1e-5)
    assert found.dense.shape == (2, 448, 16, 24)
    with pytest.raises(WeightsError, match="no mask head"):
        load_mask_head(path)


def test_wrong_files_are_told_by_name(tmp_path):
    missing = tmp_path / "none.safetensors"
    with pytest.raises(WeightsError, match="there is no file"):
        load_net(missing)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(shipped().read_bytes()[:1000])
    with pytest.raises(WeightsError, match="no safetensors file"):
        load_net(torn)
    other = tmp_path / "other.safetensors"
    save_file({"embedding": torch.zeros(3)}, other)
    with pytest.raises(WeightsError, match="embedding"):
        load_net(other)
    text = tmp_path / "notes.pth"
    text.write_text("no weights")
    with pytest.raises(WeightsError, match="tensors alone"):
        load_net(text)
    listed = tmp_path / "list.pth"
    torch.save([1, 2], listed)
    with pytest.raises(WeightsError, match="no state dict"):
        load_net(listed)


@pytest.mark.parametrize(
    "shape", ['{"stem": 100000000}', '{"stem": 8.5}', '{"steam": 8}', "[1]", '{"widths": [8]}', "{"]
)
def test_a_file_that_lies_about_its_sizes_is_refused(tmp_path, shape):
    path = tmp_path / "own.safetensors"
    save_file({"net.x": torch.zeros(1)}, path, {"format": FORMAT, "shape": shape})
    with pytest.raises(WeightsError, match="sizes"):
        load_net(path)


def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code of a weights file was run",))

    path = tmp_path / "evil.pth"
    torch.save({"layer1.0.conv1.weight": Evil()}, path)
    with pytest.raises(WeightsError, match="tensors alone"):
        load_net(path)


def test_a_resnet_of_another_size_or_with_nan_is_refused(tmp_path):
    from torchvision.models import resnet18, resnet34

    path = tmp_path / "resnet34.pth"
    torch.save(resnet34(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match="does not fit"):
        load_net(path)
    state = resnet18(weights=None).state_dict()
    state["conv1.weight"][0] = float("nan")
    torch.save(state, path)
    with pytest.raises(WeightsError, match="NaN"):
        load_net(path)


def test_a_file_that_is_too_large_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.defects.weights.LARGEST", 1000)
    with pytest.raises(WeightsError, match="not opened"):
        load_net()


def test_an_archive_that_swells_is_not_opened(tmp_path, monkeypatch):
    import zipfile

    monkeypatch.setattr("tasks.defects.weights.LARGEST", 1_000_000)
    plain, small = tmp_path / "plain.pth", tmp_path / "small.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(1_000, 1_000)}, plain)
    with (
        zipfile.ZipFile(plain) as stored,
        zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    assert small.stat().st_size < 10_000
    with pytest.raises(WeightsError, match="holds 4 MiB"):
        load_net(small)


def test_smoke(capsys):
    from tests.benchmarks import defects_weights

    defects_weights.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "defects-weights"
    assert result["weights_mb"] < 12
    assert result["surface_acc"] > result["surface_acc_untrained"]
    assert result["mask_auroc"] > result["mask_auroc_contrast"]


def test_a_file_that_tells_of_a_net_larger_than_itself_is_refused_before_it_is_built(
    tmp_path, monkeypatch
):
    """Sizes that are each allowed may still ask for hundreds of gigabytes together."""
    monkeypatch.setattr("tasks.defects.weights.DefectNet", lambda _: pytest.fail("it was built"))
    path = tmp_path / "large.safetensors"
    shape = {"stem": 8, "widths": [1_024] * 3, "blocks": [1_000] * 3, "dense": 8}
    notes = {"format": FORMAT, "shape": json.dumps(shape)}
    save_file({"net.x": torch.zeros(1)}, path, notes)
    with pytest.raises(WeightsError, match="larger than itself"):
        load_net(path)
