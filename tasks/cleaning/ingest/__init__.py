"""A stranger's table becomes texts plus quarantine records: plain functions over bytes."""
