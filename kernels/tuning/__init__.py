"""Search for hyper-parameters: ask, train, tell; bad trials end early, or change as they train."""
