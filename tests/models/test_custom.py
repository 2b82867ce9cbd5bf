"""model=custom: a network without a decorator, named by its file and class, is a run as on own parts."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.composing import make_composer
from helpers.own_parts import forgotten
from helpers.runs import QUIET, assert_same_run, interrupt
from hydra.core.override_parser.overrides_parser import OverridesParser

import hidden_subnet as hs
from hidden_subnet.cli.own_help import own_parts_text
from hidden_subnet.config.convert import as_dict, from_dict
from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.own_parts import USED, import_own_parts, require_own_parts, with_own_code
from hidden_subnet.config.registries import OWN, TARGETS, info_of
from hidden_subnet.config.settings import Config
from hidden_subnet.config.source_digest import source_files
from hidden_subnet.errors import ConfigError
from hidden_subnet.models.from_config import random_network
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight
from hidden_subnet.sweep.slurm_array import copies_to_use
from hydra_plugins.hidden_subnet.grid_sweeper import expand
from hydra_plugins.hidden_subnet.options import keep_back_options
from hydra_plugins.hidden_subnet.own_parts import with_own_parts

__all__ = ["forgotten"]

NETS = """
from torch import nn
from my_layers import between

class Net(nn.Module):
    def __init__(self, num_classes=1000, width=32, p=0.5, sizes=(3, 3)):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), *between(p), nn.Linear(width, num_classes))

    def forward(self, images):
        return self.layers(images)

def deep(shape, classes, depth, **more):
    return nn.Sequential(nn.Flatten(), *[nn.Linear(64, 64) for _ in range(depth)], nn.Linear(64, classes))

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1000))
"""
LAYERS = "from torch import nn\n\ndef between(p):\n    return nn.ReLU(), nn.Dropout(p)\n"
TRAINED = ("data=synthetic", "train.epochs=2", "train.batch_size=50")


@pytest.fixture
def nets(forgotten: None, tmp_path: Path) -> Path:
    (tmp_path / "my_nets.py").write_text(NETS)
    (tmp_path / "my_layers.py").write_text(LAYERS)
    return tmp_path / "my_nets.py"


def composed(*typed: str) -> Config:
    words = with_own_parts(["model=custom", "tracker=none", *typed])
    return make_composer().compose(words)


def again() -> None:
    """Forget what is imported, as another process would not have it."""
    USED.clear()
    TARGETS.clear()
    OWN.clear()
    for name in ("my_nets", "my_layers"):
        sys.modules.pop(name, None)


def test_a_class_gets_its_arguments_and_the_classes_of_the_images(nets: Path) -> None:
    config = composed(f"model.target={nets}:Net", "model.args.width=16")
    assert with_own_parts([f"model.target={nets}:Net", "model=custom"]) == [
        "model.target=Net",
        "model=custom",
        f'use=["{nets}:Net"]',
    ]
    network: Any = random_network(config, info_of(config.data), 0)
    assert [layer.weight.shape for layer in network.layers if hasattr(layer, "weight")] == [(16, 64), (10, 16)]
    assert "custom.Net" in folder_name(config)
    assert projection(config)["model"] == {
        "name": "custom",
        "width": 1.0,
        "target": "Net",
        "args": {"width": 16, "p": 0.5},
    }
    hundred = composed(f"model.target={nets}:Net", "model.args={num_classes: 100, p: 0}")
    assert hundred.model.args == {"width": 32, "p": 0.0, "num_classes": 100}  # type: ignore[attr-defined]
    assert own_parts_text().endswith(
        "model=custom model.target=Net, by model.args: Net(num_classes=1000, width=32, p=0.5, sizes=(3, 3))"
    )


def test_its_id_has_its_arguments_and_its_code(nets: Path) -> None:
    typed = f"model.target={nets}:Net"
    first = composed(typed)
    assert folder_name(composed(typed, "model.args={width: 32}")) == folder_name(first)
    assert folder_name(composed(typed, "model.args.width=33")) != folder_name(first)
    assert first.code == USED[f"{nets}:Net"].digest
    # Its other class, and the whole file, do not matter.
    composed(f"model.target={nets}:deep", "model.args.depth=1")
    import_own_parts([f"{nets}:deep", f"{nets}:Net"])
    assert composed(typed).code == first.code
    again()
    (nets.parent / "my_layers.py").write_text(LAYERS.replace("nn.ReLU", "nn.Tanh"))
    changed = composed(typed)
    assert changed.code != first.code
    assert folder_name(changed) != folder_name(first)
    with pytest.raises(ConfigError, match="has changed since the run was started"):
        require_own_parts(first)


def test_a_run_resumes_and_is_built_again_where_its_class_is_named(nets: Path, tmp_path: Path) -> None:
    words = (f"model.target={nets}:Net", *TRAINED)
    whole = execute(composed(*words, f"out={tmp_path / 'whole'}"), QUIET)
    resumed = composed(*words, f"out={tmp_path / 'resumed'}")
    interrupt(resumed, steps=3)
    assert execute(resumed, QUIET).state == whole.state == "done"
    assert_same_run(whole.folder, files.folder_of(resumed))
    again()
    asked = r"model.target=Net: .* must be named again; type: 'use=\[.*/my_nets.py:Net\]' for launch.py, --use"
    with pytest.raises(ConfigError, match=asked):
        hs.load(whole.folder)
    network: Any = hs.load(whole.folder, use=f"{nets}:Net")
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_only_the_command_line_names_its_file(nets: Path) -> None:
    settings = as_dict(composed(f"model.target={nets}:Net"))
    again()
    with pytest.raises(ConfigError, match=r"my_nets.py:Net: only the command line names files to import"):
        with_own_code(from_dict(settings))
    assert "my_nets" not in sys.modules
    preset = {**settings, "use": [], "code": None, "model": {"name": "custom", "target": f"{nets}:Net"}}
    with pytest.raises(ConfigError, match=r"my_nets.py:Net: only the command line names files to import"):
        from_dict(preset)
    assert "my_nets" not in sys.modules


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model=custom"], r"model=custom: name the class too; as in: model.target=my_nets.py:Net"),
        (["model=custom", "model.target=my_nets.Net"], r"type: model.target=my_nets:Net$"),
        (["model=custom", "model.target=my_nets.py"], r"as in: model.target=my_nets.py:Net$"),
        (["model=custom", "model.target=Net"], r"as in: model.target=my_nets.py:Net$"),
        (["model.target=FILE:Net"], r"is of model=custom; type: model=custom model.target=.*:Net$"),
        (["model=custom", "model.target=FILE:net"], r"no net in the file; it has Net, .*; did you mean: .*:Net$"),
        (["model=custom", "model.target=FILE:Net", "model.args.widht=3"], r"type: model.args.width=3$"),
        (["model=custom", "model.target=FILE:Net", "model.width=3"], r"type: model.args.width=3$"),
        (["model=custom", "model.target=FILE:deep"], r"its argument depth has no default.*as in: model.args.depth=1$"),
        (["model=custom", "model.target=FILE:fixed"], r"model.target=fixed: must map 2 images .*gives \(2, 1000\)"),
        (["model=custom", "model.target=FILE:nn"], r"there is no nn in the file"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(nets: Path, tmp_path: Path, words: list[str], line: str) -> None:
    words = [*(word.replace("FILE", str(nets)) for word in words), "tracker=none", f"out={tmp_path / 'runs'}"]
    with pytest.raises(ConfigError, match=line) as caught:
        preflight([make_composer().compose(with_own_parts(words))])
    assert "\n" not in str(caught.value)


def test_python_takes_the_same_words(nets: Path, tmp_path: Path) -> None:
    words = ("model=custom", f"model.target={nets}:Net", "method=random", "data=synthetic")
    result = hs.run(*words, out=str(tmp_path / "runs"), **{"model.args": {"width": 8, "p": 0.25}})
    assert result.record["projection"]["model"]["args"] == {"width": 8, "p": 0.25}


def test_its_arguments_go_to_the_runs_that_have_them() -> None:
    words = ["model=fc,custom", "model.target=Net", "model.args.width=64", "model.width=1"]
    jobs = expand(OverridesParser.create(), keep_back_options(words), [{}])
    assert jobs == [
        ["model=fc", "model.width=1"],
        ["model=custom", "model.target=Net", "model.args.width=64", "model.width=1"],
    ]


def test_a_copy_for_slurm_has_a_file_once(nets: Path) -> None:
    import_own_parts([f"{nets}:Net", f"{nets}:deep"])
    assert copies_to_use(Path("/code")) == [
        "--use", "/code/own/0/my_nets.py:Net", "--use", "/code/own/0/my_nets.py:deep",
    ]  # fmt: skip


def test_of_an_installed_package_its_own_files_count(tmp_path: Path) -> None:
    root = tmp_path / "site-packages"
    for name in ("mine/__init__.py", "mine/nets.py", "theirs.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "mine" / "nets.py").write_text("import theirs\nimport mine\n")
    found = source_files(root / "mine" / "nets.py", root)
    assert [path.relative_to(root).as_posix() for path in found] == ["mine/__init__.py", "mine/nets.py"]
