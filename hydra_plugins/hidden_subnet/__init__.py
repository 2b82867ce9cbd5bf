"""Our sweeper and launchers; Hydra finds plugins in the package hydra_plugins."""

from hydra_plugins.hidden_subnet.hydra_versions import hide_advice_for_developers

hide_advice_for_developers()  # before the other modules, which register their parts where they are imported
