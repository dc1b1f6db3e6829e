"""Folders of plain files under one manifest: what models are published as."""
