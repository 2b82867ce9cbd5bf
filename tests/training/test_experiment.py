"""All that is in place before the first step; whoever uses a config leaves it as it was."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import folder_runs
from helpers.image_folders import make_folder
from helpers.runs import QUIET, interrupt, small, with_parents

from hidden_subnet.analysis.controls import measure_untrained, readout_runs, small_dense_runs
from hidden_subnet.analysis.evaluate import load_checkpoint, measure, rebuilt
from hidden_subnet.config.convert import as_dict
from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Config, Device, Model, Seeds
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.methods.warmup_then_prune import WarmupThenPruneSettings
from hidden_subnet.store import files
from hidden_subnet.store.files import load_config
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training.callbacks import Callbacks
from hidden_subnet.training.experiment import build_network, masked, open_images, resolve
from hidden_subnet.training.run import run
from hidden_subnet.training.speed import steps_per_second

Compose = Callable[..., Config]


@contextmanager
def unchanged(config: Config) -> Iterator[None]:
    """Compare every setting, and the objects that hold them, before and after."""
    before, parts = as_dict(config), copy.deepcopy(config)
    yield
    assert as_dict(config) == before
    assert config == parts


def run_once(config: Config, folder: Path) -> dict[str, Any]:
    (folder / "checkpoints").mkdir(parents=True)
    return run(config, folder, Callbacks())


def test_resolve_works_out_what_a_config_leaves_open(tmp_path: Path) -> None:
    config = small(tmp_path, device=Device.cpu)
    config.seed, config.seeds = 5, Seeds(data=7)
    config.data.pad = 2
    resolved = resolve(config)
    assert (resolved.weights_seed, resolved.data_seed, resolved.split_seed) == (5, 7, 5)
    assert resolved.info.shape == (1, 12, 12)
    assert resolved.device == "cpu"
    assert resolve(replace(config, train=replace(config.train, device=Device.auto)), "mps").device == "mps"


def test_masking_is_in_place_and_keeps_the_weights(tmp_path: Path) -> None:
    resolved = resolve(small(tmp_path))
    built = build_network(resolved)
    before = {name: value.clone() for name, value in built.network.state_dict().items()}
    with open_images(resolved) as loaders:
        experiment = masked(built, resolved, tmp_path, loaders)
    assert experiment.network is built.network
    assert experiment.method.network is built.network
    assert all(torch.equal(built.network.state_dict()[name], value) for name, value in before.items())
    assert experiment.parameters == sum(value.numel() for value in before.values())
    assert experiment.kept_state().keys() == {f"{path}.scores" for path, _ in masked_layers(built.network)}
    assert build_network(resolved).weights_sha256 == experiment.weights_sha256


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_run_leaves_its_config_as_it_got_it(method: str, pruning: str, tmp_path: Path) -> None:
    config = small(tmp_path, method, epochs=3, threads=1)
    config.init.name, config.pruning.name, config.pruning.ramp_epochs = "kaiming_normal", pruning, 1
    if isinstance(config.method, WarmupThenPruneSettings):
        config.method.weight_epochs = 1
    with unchanged(with_parents(config)):
        run_once(config, tmp_path / "run")


def test_run_with_batch_norm_and_little_precision_leaves_its_config(tmp_path: Path) -> None:
    config = small(tmp_path, epochs=1, norm_batches=1, channels_last=True)
    config.model = Model(name="cifar_resnet18", width=1 / 8)  # narrower ones crash (docs/performance.md)
    with unchanged(config):
        run_once(config, tmp_path / "run")


def test_run_from_pretrained_weights_leaves_its_config(compose: Compose, tmp_path: Path) -> None:
    tiny = ("data=synthetic", "model=fc", "model.width=0.1", "tracker=none", "train.epochs=1", f"out={tmp_path}")
    source = execute(compose(*tiny, "method=dense"), QUIET).folder
    config = compose(*tiny, f"pretrained={source}")
    assert config.pretrained_sha256 is not None
    with unchanged(config):
        result = run_once(config, tmp_path / "run")
    assert result["pretrained"]["loaded"] == 3
    folder = execute(config, QUIET).folder
    recorded = load_config(folder / files.CONFIG)
    with rebuilt(folder, Device.auto) as (experiment, _):
        # The weights are in its checkpoints, and the digest still says which they were.
        assert experiment.config == replace(recorded, pretrained=None)


def test_run_on_image_files_leaves_its_config(compose: Compose, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images")
    config = folder_runs.small(compose, root, "train.epochs=1", "data.workers=0")
    with unchanged(config):
        run_once(config, tmp_path / "run")


def test_stopped_and_resumed_run_leaves_its_config(tmp_path: Path) -> None:
    config = small(tmp_path, epochs=2)
    with unchanged(config):
        interrupt(config, 3)
        assert execute(config, QUIET).state == "done"
        assert execute(config, QUIET).state == "skipped"


def test_timing_steps_leaves_the_config(tmp_path: Path) -> None:
    config = small(tmp_path, batch_size=8)
    with unchanged(config):
        assert steps_per_second(config, 0.01, lambda: None) > 0


def test_evaluation_and_controls_leave_the_config(undisturbed: Callable[[str], Path], tmp_path: Path) -> None:
    folder = undisturbed("edge_popup")
    recorded = load_config(folder / files.CONFIG)
    written = (folder / files.CONFIG).read_bytes()
    with rebuilt(folder, Device.cpu) as (experiment, result):
        assert experiment.config == recorded
        with unchanged(experiment.config):
            assert [each.equal for each in measure(experiment, result, ["last"])] == [True, True]
            load_checkpoint(experiment, result, "last")
            measure_untrained(experiment, 1)
            readout_runs(experiment.config, tmp_path, 2)
            small_dense_runs(experiment.config, tmp_path, 2, 1000)
    with rebuilt(folder, Device.cpu, root="elsewhere") as (experiment, _):
        assert experiment.config == replace(recorded, data=replace(recorded.data, root="elsewhere"))
    assert (folder / files.CONFIG).read_bytes() == written
