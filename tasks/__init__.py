"""One folder per capability: plain functions; ``steps.py`` wraps them as Prefect tasks."""
