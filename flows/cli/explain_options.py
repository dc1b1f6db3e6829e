"""Options that the commands of ``penstock explain`` share, and how they are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Catalogue = Annotated[
    Path | None, typer.Option(help="TOML of codes and words of the reasons; none: the model's own.")
]
Language = Annotated[str, typer.Option(help="Language of the reasons: en or zh.")]
Data = Annotated[Path, typer.Argument(help="Parquet or CSV file.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Config = Annotated[
    str,
    typer.Option(help="Dataset config of the fraud model: a TOML file or a shipped one's name."),
]
Contract = Annotated[
    Path | None, typer.Option("--contract", help="TOML of own lines that rows must meet.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Model = Annotated[
    Path | None,
    typer.Option("--model", help="Own model: TorchScript (.pt), torch.export (.pt2) or ONNX."),
]
Held = Annotated[
    Path | None,
    typer.Option("--background", help="Own model: table of rows to compare with; its columns are "
                 "the model's features."),
]  # fmt: skip
Groups = Annotated[Path | None, typer.Option(help="Own model: TOML of groups, group = [features].")]
Key = Annotated[str, typer.Option("--key-column", help="Own table: column that names rows.")]
Time = Annotated[str, typer.Option("--time-column", help="Own table: column of instants.")]
Label = Annotated[str, typer.Option("--label-column", help="Own table: outcomes, 1 bad, 0 good.")]
Entity = Annotated[
    str, typer.Option("--entity-column", help="Own table: whose rows belong together.")
]
Segment = Annotated[
    list[str] | None, typer.Option("--segment", help="Own table: column that divides the rows.")
]
ReviewAt = Annotated[float | None, typer.Option(help="Own model: score from which to review.")]
BlockAt = Annotated[float | None, typer.Option(help="Own model: score from which to block.")]
Output = Annotated[int | None, typer.Option(help="Own model: which of several outputs, from 0.")]
Seconds = Annotated[
    float | None, typer.Option(min=0, help="Own model: time for one round of explanations.")
]
Days = Annotated[float, typer.Option(min=0, help="Whole days back from the last one; 0: all.")]
Rows = Annotated[int, typer.Option(min=1, help="Most rows; more are drawn from.")]
Seed = Annotated[int, typer.Option(help="Of all draws.")]


_OPTIONS = {"key": "key-column", "time": "time-column", "label": "label-column",
            "entity": "entity-column", "segments": "segment"}  # fmt: skip


def own_record(
    data: Path, model: Path | None, background: Path | None, **given: Any
) -> dict[str, Any] | None:
    """Return a user's own model as JSON data; None where none was given.

    Raises:
        ValueError: When only one of model and background was given, or an option needs both.
    """
    if (model is None) != (background is None):
        raise ValueError("--model and --background belong together; give both, or neither")
    if model is None or background is None:
        # The seed is of both kinds of model.
        used = [n for n, value in given.items() if n != "seed" and value not in (None, "", ())]
        if used:
            raise ValueError(
                f"--{_OPTIONS.get(used[0], used[0].replace('_', '-'))} is an option of an own "
                "model: give --model and --background, too"
            )
        return None
    from connectors.explain.own_model import OwnModel
    from connectors.files import require_file

    for file in (model, background, data, given.get("groups")):
        if file is not None:
            require_file(file)
    paths: dict[str, Any] = {
        "model": model.resolve(),
        "data": data.resolve(),
        "background": background.resolve(),
    }
    if given.get("groups") is not None:
        given["groups"] = given["groups"].resolve()
    return OwnModel(**paths, **given).to_record()


def require_data(
    data: Path, config: str, contract: Path | None, own: dict[str, Any] | None
) -> None:  # fmt: skip
    """Find a misspelt path at once, not after Prefect and MLflow have come up."""
    if own is None:
        from flows.cli.fraud_model import require_inputs

        require_inputs(data, config, contract)


def require_words(catalogue: Path | None, language: str) -> None:
    """Refuse a catalogue that is none before anything is computed.

    Raises:
        tasks.explain.errors.CatalogueError: With the entry at fault.
        ValueError: On a language without words.
    """
    if catalogue is None and language == "en":
        return
    from tasks.explain.catalogue.files import read_catalogue
    from tasks.explain.languages import LANGUAGES

    if language not in LANGUAGES:
        raise ValueError(f"there are no words in {language!r}; use {' or '.join(LANGUAGES)}")
    if catalogue is not None:
        read_catalogue(catalogue)


def path_text(path: Path | None) -> str:
    """Return a path as flows take it; empty for none."""
    return str(path.resolve()) if path else ""
