"""Find and study the subnetworks hidden in randomly weighted neural networks."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hidden_subnet.analysis.load import load, load_masks, load_scores, test_images, train_images
    from hidden_subnet.analysis.overlap import compare
    from hidden_subnet.analysis.save_masks import save_masks
    from hidden_subnet.cli.assert_resumes import assert_resumes
    from hidden_subnet.cli.python_api import Result, history, run, run_sweep
    from hidden_subnet.config.settings import MethodSettings, Train, setting
    from hidden_subnet.data.own_data import ImageData, register_data
    from hidden_subnet.masks.allocation import register_budget
    from hidden_subnet.methods.base import Method, register_method
    from hidden_subnet.methods.edge_popup import EdgePopup
    from hidden_subnet.methods.own_loop import mask, remove_masks
    from hidden_subnet.models.inits import register_init
    from hidden_subnet.models.own_network import register_model
    from hidden_subnet.report.inside import show
    from hidden_subnet.report.own_plots import register_plot
    from hidden_subnet.report.results import results
    from hidden_subnet.seeding import generator
    from hidden_subnet.training.optim import register_schedule
    from hidden_subnet.training.own_metrics import register_metric

    __version__: str

__all__ = [
    "EdgePopup",
    "ImageData",
    "Method",
    "MethodSettings",
    "Result",
    "Train",
    "__version__",
    "assert_resumes",
    "compare",
    "generator",
    "history",
    "load",
    "load_masks",
    "load_scores",
    "mask",
    "register_budget",
    "register_data",
    "register_init",
    "register_method",
    "register_metric",
    "register_model",
    "register_plot",
    "register_schedule",
    "remove_masks",
    "results",
    "run",
    "run_sweep",
    "save_masks",
    "setting",
    "show",
    "test_images",
    "train_images",
]
PLACES = {
    "EdgePopup": "methods.edge_popup",
    "ImageData": "data.own_data",
    "Method": "methods.base",
    "MethodSettings": "config.settings",
    "Train": "config.settings",
    "Result": "cli.python_api",
    "assert_resumes": "cli.assert_resumes",
    "compare": "analysis.overlap",
    "generator": "seeding",
    "history": "cli.python_api",
    "load": "analysis.load",
    "load_masks": "analysis.load",
    "mask": "methods.own_loop",
    "register_budget": "masks.allocation",
    "register_data": "data.own_data",
    "register_init": "models.inits",
    "register_method": "methods.base",
    "register_metric": "training.own_metrics",
    "register_model": "models.own_network",
    "register_plot": "report.own_plots",
    "register_schedule": "training.optim",
    "remove_masks": "methods.own_loop",
    "results": "report.results",
    "run": "cli.python_api",
    "load_scores": "analysis.load",
    "setting": "config.settings",
    "run_sweep": "cli.python_api",
    "save_masks": "analysis.save_masks",
    "show": "report.inside",
    "test_images": "analysis.load",
    "train_images": "analysis.load",
}
"""The modules of the public names, imported at first use: `python launch.py --help` must not wait for torch."""


if sys.platform == "win32":  # said here, and therefore once for every command
    print(
        "hidden_subnet: Windows is not supported: runs need fork, signals and files as on Linux and macOS; "
        "use WSL, which is Linux (wsl --install). hidden_subnet.load reads finished runs here too",
        file=sys.stderr,
    )


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in PLACES:
        raise AttributeError(f"module 'hidden_subnet' has no attribute {name!r}")
    return vars(importlib.import_module(f"hidden_subnet.{PLACES[name]}"))[name]


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    """Return the version in the setup.cfg of this checkout, or that of the installed package where there is none."""
    from configparser import ConfigParser
    from importlib.metadata import version

    setup = ConfigParser()
    setup.read(Path(__file__).resolve().parents[1] / "setup.cfg")
    if setup.get("metadata", "name", fallback="") == "hidden_subnet":
        return setup["metadata"]["version"]
    return version("hidden_subnet")
