"""The optimized-training runtime: a plain, resumable training loop and what plugs into it."""
