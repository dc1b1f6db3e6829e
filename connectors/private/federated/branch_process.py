"""A branch as a process of its own.

python -m connectors.private.federated.branch_process FOLDER
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from connectors.private.federated.branch_client import BranchClient
from connectors.private.federated.branch_folder import LEDGER, read_branch, read_identity
from connectors.private.federated.ledger import Ledger, digest_of_rows
from tasks.privacy.federated.branch_work import BranchWork

logger = logging.getLogger(__name__)


def main() -> None:
    """Take part in one training with the rows of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the branch")
    folder = parser.parse_args().folder
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings, x, y = read_branch(folder)
    work = BranchWork(settings.plan, settings.roster, settings.name, x, y)
    logger.info("branch %r has %d rows", settings.name, len(y))
    rows = digest_of_rows(settings.plan.columns, x)
    ledger = Ledger(folder / LEDGER, settings.plan.digest, rows)
    identity = read_identity(folder)
    BranchClient(settings.roster, work, identity, settings.address, ledger).run()


if __name__ == "__main__":
    main()
