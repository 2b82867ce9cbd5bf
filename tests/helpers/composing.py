"""The composer of a sweep, for tests with many commands: each costs a hundredth of what Hydra takes for one."""

from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode

from hidden_subnet.config.convert import register
from hydra_plugins.hidden_subnet.compose import Composer

ROOT = Path(__file__).parents[2]


def make_composer() -> Composer:
    register(ROOT / "sweeps")
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    context = HydraContext(config_loader=loader, callbacks=None)  # type: ignore[arg-type]
    return Composer(context, loader.load_configuration("config", [], RunMode.MULTIRUN))
