"""python launch.py [-m] [name=value ...]: one run, or a sweep. --help explains the parts."""

import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def task(composed: Any) -> float | None:
    """What Hydra calls for a single run, and what its own launchers call for each job of a sweep.

    Returns what a sweeper that searches is told: hydra_plugins/hidden_subnet/objective.py.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from hydra_plugins.hidden_subnet.compose import to_checked_config
    from hydra_plugins.hidden_subnet.evaluating import evaluate_as_asked
    from hydra_plugins.hidden_subnet.objective import objective
    from hydra_plugins.hidden_subnet.secrets import refuse_secrets_in

    try:
        refuse_secrets_in(HydraConfig.instance().cfg)
        config = to_checked_config(composed)
        if config.evaluate is not None:
            sys.exit(evaluate_as_asked(config, HydraConfig.get().overrides.task))
        if config.plan:
            from hidden_subnet.report.plan import print_plan

            print_plan([config])
            return None
        from hidden_subnet.single import run_single

        code = run_single(config, sweep=os.environ.get("HIDDEN_SUBNET_SWEEP"))
    except (ValueError, OSError) as error:
        # Here and not in main, since Hydra prints a line of its own over an exception that it sees.
        sys.exit(f"error: {' '.join(str(error).split())}")
    # A job that failed must not end the sweep of one of Hydra's launchers: the sweeper looks at the run folders.
    if code == 130 or (code and HydraConfig.get().mode is not RunMode.MULTIRUN):
        sys.exit(code)
    return objective(config)


def plain_help() -> str:
    """What Hydra makes of the template in conf/config.yaml, in which nothing is to be filled in.

    Hydra itself first lists every option of every group, which takes most of two seconds.
    """
    import yaml

    template: str = yaml.safe_load((HERE / "conf" / "config.yaml").read_text())["hydra"]["help"]["template"]
    return template


def main() -> None:
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(plain_help())
        return
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hidden_subnet.config import register
    from hydra_plugins.hidden_subnet.errors import one_line
    from hydra_plugins.hidden_subnet.options import refuse_names
    from hydra_plugins.hidden_subnet.optuna_study import take_over
    from hydra_plugins.hidden_subnet.secrets import refuse_secrets

    try:
        refuse_secrets(sys.argv[1:])
        refuse_names(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    # argparse refuses overrides on both sides of -m.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the line below is the one that the user reads
    try:
        register(HERE / "sweeps", sys.argv[1:])
        take_over()
        hydra.main(version_base="1.3", config_path=str(HERE / "conf"), config_name="config")(task)()
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, OSError) as error:
        if wants_traceback:
            raise
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is saved", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # while this was loading
        sys.exit(130)
