"""Our sweeper and launchers; Hydra finds plugins in the package hydra_plugins."""
