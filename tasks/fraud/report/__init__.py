"""The fraud report: one self-contained HTML page, built from plain data.

>>> from tasks.fraud.report import ReportInputs, build_report
"""

from __future__ import annotations

from tasks.fraud.report.decode import ReportError
from tasks.fraud.report.model import ReportInputs
from tasks.fraud.report.render import build_report

__all__ = ["ReportError", "ReportInputs", "build_report"]
