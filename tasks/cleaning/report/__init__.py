"""The page that shows what a cleaning run did to a table."""
