"""Plans and parts as files: JSON, a plan for everybody, a part for its party alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from connectors.private.owner_only import check_owner_only, write_owner_only
from tasks.privacy.shares.compile import JointModel
from tasks.privacy.shares.part import Part
from tasks.privacy.shares.plan import JointPlan, PlanError

PLAN_FILE = "plan.json"
PART_FILES = ("party-0-part.json", "party-1-part.json")
_MOST_BYTES = 64 << 20


def write_model(model: JointModel, folder: Path) -> tuple[Path, Path, Path]:
    """Write the plan, for both parties and the dealer, and either party's part.

    Returns:
        The paths of the plan and of the parts of party 0 and party 1.

    Raises:
        FileExistsError: When there are some.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan, first, second = folder / PLAN_FILE, folder / PART_FILES[0], folder / PART_FILES[1]
    write_owner_only(plan, json.dumps(model.plan.to_dict(), indent=1).encode())
    for path, part in ((first, model.parts[0]), (second, model.parts[1])):
        write_owner_only(path, json.dumps(part.to_dict()).encode())
    return plan, first, second


def read_plan(path: Path) -> JointPlan:
    """Read a plan.

    Raises:
        PlanError: When the file holds none.
    """
    return JointPlan.from_dict(_json(path))


def read_part(path: Path) -> Part:
    """Read a party's part.

    Raises:
        PlanError: When the file holds none.
        ConfigurationError: When others can read it.
    """
    check_owner_only(path)
    return Part.from_dict(_json(path))


def _json(path: Path) -> Any:
    if path.stat().st_size > _MOST_BYTES:
        raise PlanError(f"{path} is too large for a plan or a part")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is no JSON ({error})") from error
    if not isinstance(data, dict):
        raise PlanError(f"{path} holds no plan or part")
    return data
