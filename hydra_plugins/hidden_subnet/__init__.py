"""Hydra finds the sweeper and the launcher in this package."""
