"""What a user brings to have a model explained: its file, tables, thresholds.

Models: TorchScript (``.pt``, ``.ts``), an archive of torch.export (``.pt2``) or ONNX. None of them
is loaded by Python's pickle. Tables: Parquet or CSV. The background table says which columns the
model reads, in its order; the other table may have more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from connectors.explain.model_files import SUFFIXES
from tasks.explain.errors import ExplanationError


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnModel:
    """What a user brings.

    Attributes:
        model: The model's file.
        data: Table of the rows.
        background: Table of the rows to compare with; its columns are the model's features.
        groups: TOML file: player -> list of features; empty: every feature stands alone.
        key: Column that names rows; empty: their number.
        time: Column of instants; empty: none.
        label: Column of outcomes, 1 bad and 0 good; empty: none.
        entity: Column whose rows belong together; empty: none.
        segments: Columns that divide the rows.
        review_at: Score from which a row is reviewed; None: never.
        block_at: Score from which it is blocked; None: never.
        output: Which of several outputs is explained; None: the only one.
        most_background: Background rows kept, drawn by ``seed``.
        evaluations: Most mixed rows scored for a row where coalitions are drawn.
        seconds: Time for one round of explanations.
        seed: Of all draws.
    """

    model: Path
    data: Path
    background: Path
    groups: Path | None = None
    key: str = ""
    time: str = ""
    label: str = ""
    entity: str = ""
    segments: tuple[str, ...] = ()
    review_at: float | None = None
    block_at: float | None = None
    output: int | None = None
    most_background: int = 100
    evaluations: int = 200_000
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what needs no file, naming the fix."""
        if self.model.suffix.lower() not in SUFFIXES:
            raise ExplanationError(
                f"{self.model}: a model must be one of {', '.join(SUFFIXES)}; write it by "
                "torch.jit.script, torch.export or as ONNX"
            )
        at = (self.review_at, self.block_at)
        if at[0] is not None and at[1] is not None and at[0] > at[1]:
            raise ExplanationError(f"review_at {at[0]} lies above block_at {at[1]}; exchange them")
        if self.most_background < 1:
            raise ExplanationError("most_background must be at least 1")

    @property
    def thresholds(self) -> dict[str, float]:
        """Decision -> score from which it is made."""
        both = {"review": self.review_at, "block": self.block_at}
        return {name: at for name, at in both.items() if at is not None}

    def to_record(self) -> dict[str, Any]:
        """Return JSON data that ``from_record`` reads back."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @classmethod
    def from_record(cls, data: Mapping[str, Any]) -> OwnModel:
        """Read ``to_record``."""
        paths = {k: Path(data[k]) for k in ("model", "data", "background")}
        groups = Path(data["groups"]) if data["groups"] else None
        return cls(**{**data, **paths, "groups": groups, "segments": tuple(data["segments"])})
