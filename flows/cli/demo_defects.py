"""The inspection part of ``penstock demo``: a line of cast parts, from images to verdicts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

LINE, EDGE, PICTURES = "casting", "edge.onnx", "pictures"
SETTINGS: dict[str, Any] = {
    "detect": {"steps": 80, "fold_steps": 20, "piece": 64, "memory": 256},
    "promise": {"max_escape": 0.1, "max_false_reject": 0.2},
    "edge": {"calibration": 16, "qdq": {"rules": ["99.99"], "most_float": 0}},
    "boxes": {"fit": False},
}
"""Less than by default: that is 2,000 steps of training, five rules of int8 ranges on 32 images,
a search for nodes that better stay float, and a detector of boxes."""
OK, NG = 80, {"scratch": 17, "pit": 17, "stain": 16}
"""Parts to learn from: 50 defective ones carry a promise of 10 % (29 held out, 21 left)."""
STRENGTH = (3.0, 7.0)
"""Of the defects. Of fainter ones (1.5 to 5) so short a training leaves half of the parts to a
person, a tenth of these."""
NEW_OK, NEW_NG = 30, 4
"""Parts that come down the line afterwards, the defective ones of each type."""


def inspect_line(console: Console, folder: Path, seed: int) -> list[str]:
    """Train on a generated line, and inspect new parts of it by the edge file.

    Args:
        console: Where it is told.
        folder: Where images, page and verdicts are written.
        seed: Of the line.

    Returns:
        Where to look: lines of text.
    """
    from connectors.defects.inspect.camera import CameraTiming
    from connectors.defects.inspect.inspector import open_inspector
    from connectors.defects.inspect.report import read_labels
    from connectors.defects.inspect.run import RunConfig, inspect_folder
    from flows.cli.defects_inspect import inspection_progress, show_run
    from flows.cli.defects_train import run_training, show_training
    from flows.cli.paths import nearby

    parts, new, labels = write_line(folder, seed)
    record = run_training(console, parts, LINE, SETTINGS)
    show_training(console, record)
    page, out, edge = folder / "model.html", folder / "verdicts", Path(record["bundle"]) / EDGE
    shutil.copyfile(record["audit"], page)
    shutil.rmtree(out, ignore_errors=True)
    console.print(f"\n{new.name}: parts that nobody labelled, by the edge file alone")
    config = RunConfig(sinks=(f"folder:{out / PICTURES}",), timing=CameraTiming(settle=0.01))
    with inspection_progress(new, watch=False) as told:
        run = inspect_folder(
            new, out, open_inspector(edge), config, labels=read_labels(labels), told=told
        )
    show_run(run)
    return [
        f"line      {nearby(str(page))}    (its model: promise, misses, heat maps)",
        f"verdicts  {nearby(str(out / PICTURES))}",
    ]


def write_line(folder: Path, seed: int) -> tuple[Path, Path, Path]:
    """Write a line as a folder as people have it, unless it is there.

    Returns:
        The labelled parts, in folders by type with masks beside; the new parts, as a camera writes
        them; and a CSV of what those are.
    """
    import numpy as np

    from connectors.defects.dataset_files import write_dataset
    from infra.files import write_atomically
    from tasks.defects.samples import Sample
    from tasks.defects.textures.line import LineConfig, make_line

    parts, new = folder / f"parts-{seed}", folder / f"new-parts-{seed}"
    labels = new.with_suffix(".csv")
    if labels.is_file():
        return parts, new, labels
    for unfinished in (parts, new):
        shutil.rmtree(unfinished, ignore_errors=True)
    made = make_line(
        LineConfig(
            ok=OK + NEW_OK,
            ng={kind: count + NEW_NG for kind, count in NG.items()},
            strength=STRENGTH,
            seed=seed,
        )
    )
    known: list[Sample] = []
    later: list[Sample] = []
    for sample in made:
        place = int(Path(sample.name).stem)
        (known if place < NG.get(sample.kind, OK) else later).append(sample)
    # Without an index: names of folders alone say what is what.
    write_dataset(known, parts).unlink()
    order = np.random.default_rng(seed).permutation(len(later))
    came = [later[place] for place in order]
    unknown = [Sample(f"{turn:04d}.png", one.pixels) for turn, one in enumerate(came)]
    write_dataset(unknown, new).unlink()
    rows = [f"{u.name},{s.label}" for u, s in zip(unknown, came, strict=True)]
    write_atomically(labels, "\n".join(["image,label", *rows, ""]))
    return parts, new, labels
