"""Settings, logging, local services and deployment files. Imports nothing of the project."""
