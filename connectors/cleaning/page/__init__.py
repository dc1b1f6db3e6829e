"""The page on which a person looks through a cleaning run and decides."""
