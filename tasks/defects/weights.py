"""Weights of the nets that inspect: the shipped ones, and those that a user has in a file.

The shipped file was trained on generated images alone (`tasks.defects.pretrain`); what is in it,
and how to build it again, says models/weights/CARD.md.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.defect_net import DefectNet, DefectNetShape, ResnetFeatures

FORMAT = "penstock-defect-net-1"
LARGEST = 256 * 2**20
"""Bytes of the largest file that is opened."""
WIDEST = 1_024
"""Largest size of a layer: a file's own word alone does not fill the memory."""
_NET, _MASK = "net.", "mask."
_RESNET = re.compile(r"layer([1-3])\.(\d)\.(conv|bn|downsample\.)([12]|[01])\.(\w+)")
_RESNET_STEM = {"conv1": "stem.0", "bn1": "stem.1"}


class WeightsError(ValueError):
    """A file that holds no weights of a known net; says what was found, and what would do."""


def shipped() -> Path:
    """Return the file of the shipped weights."""
    return Path(str(resources.files("models"))) / "weights" / "defect_net.safetensors"


def digest(path: Path | None = None) -> str:
    """Return the SHA-256 of a file of weights, of the shipped one by default."""
    return hashlib.sha256((path or shipped()).read_bytes()).hexdigest()


def load_net(path: Path | None = None) -> DefectNet:
    """Return a net in evaluation mode that turns images into features.

    Args:
        path: A ``.safetensors`` file of `pack`, or a ResNet-18 of torchvision as ``.safetensors``
            or as ``.pth`` with tensors alone; None for the shipped weights.

    Raises:
        WeightsError: When the file is missing, too large, or holds something else.
    """
    tensors, notes = _read(path or shipped())
    if notes.get("format") == FORMAT:
        shape = _shape_of(notes, path)
        _require_room(shape, tensors, path)
        net = DefectNet(shape)
        own = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
        _fill(net, _below(own, _NET), path)
    elif "layer1.0.conv1.weight" in tensors:
        net = ResnetFeatures()
        _fill(net, _from_resnet(tensors), path)
    else:
        some = ", ".join(sorted(tensors)[:3]) or "none"
        raise WeightsError(
            f"{path} holds no net that is known: its tensors are {some}, ...; give a file written "
            "by penstock defects pretrain, or a state dict of torchvision's resnet18"
        )
    return net.eval()


def load_mask_head(path: Path | None = None) -> nn.Conv2d:
    """Return the head that draws a defect's logit from each cell of the dense map.

    It was trained together with the net and finds what is unlike its surroundings without having
    seen one image of the user's.

    Args:
        path: A file of `pack`; None for the shipped weights.

    Raises:
        WeightsError: When the file has none.
    """
    tensors, notes = _read(path or shipped())
    own = {name: t.float() for name, t in _below(tensors, _MASK).items()}
    if notes.get("format") != FORMAT or not own:
        raise WeightsError(f"{path} has no mask head; only files of penstock defects pretrain have")
    head = nn.Conv2d(_shape_of(notes, path).dense, 1, 1)
    _fill(head, own, path)
    return head.eval()


def pack(net: DefectNet, mask: nn.Conv2d, notes: Mapping[str, str]) -> bytes:
    """Return a file's content: convolutions in fp16, norms in fp32, the net's sizes beside them.

    Args:
        net: The net.
        mask: Its mask head.
        notes: What else is told of it in the file.
    """
    from safetensors.torch import save

    state = {_NET + name: t for name, t in net.state_dict().items()}
    state |= {_MASK + name: t for name, t in mask.state_dict().items()}
    packed = {
        name: (t.half() if t.ndim > 1 else t).contiguous().clone() for name, t in state.items()
    }
    told = {"format": FORMAT, "shape": json.dumps(asdict(net.shape)), **notes}
    # safetensors writes its notes in any order; the same net shall give the same file.
    return _with_sorted_header(save(packed, told))


def _with_sorted_header(content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the notes of a file."""
    if not path.is_file():
        raise WeightsError(f"there is no file {path}; give the path of a file of weights")
    if (size := _unpacked(path)) > LARGEST:
        raise WeightsError(
            f"{path} holds {size / 2**20:.0f} MiB; nets of more than {LARGEST // 2**20} are not "
            "opened, give a resnet18"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as tensors alone: {str(error).splitlines()[0][:200]}; save "
            "model.state_dict() with torch.save, or as .safetensors"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise WeightsError(f"{path} holds no state dict; save model.state_dict(), not the model")
    return {str(name).removeprefix("module."): t for name, t in found.items()}, {}


def _unpacked(path: Path) -> int:
    """Return the bytes of a file; of an archive, as ``.pth`` is, what it holds may be more."""
    size = path.stat().st_size
    if size > LARGEST or not zipfile.is_zipfile(path):
        return size
    try:
        with zipfile.ZipFile(path) as archive:
            return max(size, sum(entry.file_size for entry in archive.infolist()))
    except zipfile.BadZipFile:  # torn: it is told when it is read
        return size


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file: {error}; copy it anew") from error


def _shape_of(notes: Mapping[str, str], path: Path | None) -> DefectNetShape:
    try:
        shape = DefectNetShape.from_json(json.loads(notes["shape"]))
        each = (shape.stem, shape.dense, *shape.widths, *shape.blocks)
        fits = all(isinstance(size, int) and size <= WIDEST for size in each)
        fits = fits and len(shape.widths) == len(shape.blocks) == 3
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path or shipped()} does not tell the net's sizes: {error}") from error
    if not fits:
        raise WeightsError(
            f"{path or shipped()} tells sizes that no net here has: {shape}; give whole numbers up "
            f"to {WIDEST}, three widths and three blocks"
        )
    return shape


def _require_room(shape: DefectNetShape, tensors: Mapping[str, Tensor], path: Path | None) -> None:
    """Refuse sizes of which a file holds too few numbers, before the net is built."""
    stages = zip(shape.widths, shape.blocks, strict=True)
    least = sum((2 * blocks - 1) * 9 * width**2 for width, blocks in stages)
    if least > sum(tensor.numel() for tensor in tensors.values()):
        raise WeightsError(
            f"{path or shipped()} tells sizes of a net larger than itself: {shape}; copy it anew"
        )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _from_resnet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's tensors under the small net's names; the last stage is left out."""
    found = {}
    for name, tensor in tensors.items():
        if match := _RESNET.fullmatch(name):
            stage, block, kind, number, rest = match.groups()
            if kind == "downsample.":
                place = f"around.{number}"
            else:
                place = ("first", "second")[int(number) - 1] + ("_norm" if kind == "bn" else "")
            found[f"stages.{int(stage) - 1}.{block}.{place}.{rest}"] = tensor.float()
        elif (first := name.partition("."))[0] in _RESNET_STEM:
            found[f"{_RESNET_STEM[first[0]]}.{first[2]}"] = tensor.float()
    return found


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path | None) -> None:
    """Load tensors; counters of batches may be absent."""
    wanted = module.state_dict()
    counters = {name: t for name, t in wanted.items() if name.endswith("num_batches_tracked")}
    given = counters | {name: t.long() if name in counters else t for name, t in tensors.items()}
    try:
        module.load_state_dict(given)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{path or shipped()} does not fit a {type(module).__name__}: {what}; give weights of "
            "a plain resnet18 or of penstock defects pretrain"
        ) from error
    if not all(bool(torch.isfinite(t).all()) for t in given.values() if t.is_floating_point()):
        raise WeightsError(f"{path or shipped()} holds NaN or infinity; build or copy it anew")
