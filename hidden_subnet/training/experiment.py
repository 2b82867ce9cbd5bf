"""The experiment of a run: images, masked network and method, built from the config before the first step."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.identity import id_of, schema, seed_of
from hidden_subnet.config.parents import search_of
from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Config
from hidden_subnet.data.interfaces import WHOLE, EvaluationImages, TrainingImages, shared
from hidden_subnet.data.loaders import Loaders, open_loaders
from hidden_subnet.masks.state import count_parameters, trained_state, weights_digest
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.base import Method
from hidden_subnet.models.from_config import random_network, weights_from_seed
from hidden_subnet.models.pretrained_weights import WeightMatch, load_weights
from hidden_subnet.store import checkpoints
from hidden_subnet.store.files import folder_of
from hidden_subnet.training.acceleration import speed_up
from hidden_subnet.training.batch_norm import recalibrate_batch_norm
from hidden_subnet.training.devices import choose_device
from hidden_subnet.training.distributed import SINGLE_PROCESS, ProcessGroup
from hidden_subnet.training.given_mask import MaskMatch, give_mask, read_mask
from hidden_subnet.training.metrics import Metrics, evaluate
from hidden_subnet.training.own_metrics import measures


@dataclass(frozen=True)
class Resolved:
    """A config with the device, the data's sizes and the seeds that follow from it on this machine."""

    config: Config
    device: str
    """cpu, cuda or mps."""
    info: DataInfo
    weights_seed: int
    data_seed: int
    split_seed: int
    schema: int
    """The number of the rules by which the run is computed (config/identity.py)."""


def resolve(config: Config, device: str | None = None, result: dict[str, Any] | None = None) -> Resolved:
    """Resolve a config, once per run; `device` overrides its train.device. Raises ConfigError, DataError.

    `result`: of a finished run, which has the rules of the version that computed it.
    """
    device = choose_device(config.train.device) if device is None else device
    rules = schema(config) if result is None else int(result.get("projection", {}).get("schema", 1))
    weights, data, split = (seed_of(config, stream) for stream in ("weights", "data", "split"))
    return Resolved(config, device, info_of(config.data), weights, data, split, rules)


def open_images(run: Resolved, group: ProcessGroup = SINGLE_PROCESS) -> AbstractContextManager[Loaders]:
    """Open the images of a run, for each rank its shard; reader processes end with the context. Raises DataError."""
    data, size = run.config.data, run.config.train.batch_size
    return open_loaders(data, run.info, seed=run.split_seed, batch_size=size, device=run.device, shard=group.shard)


@dataclass(frozen=True)
class BuiltNetwork:
    """The network before it is masked."""

    network: nn.Module
    parameters: int
    """Number of parameters."""
    weights_sha256: str
    """Digest of the weights, on the CPU in float32."""
    pretrained: WeightMatch | None
    """Match with the tensors of the file pretrained=; None where the weights are random."""


def build_network(run: Resolved) -> BuiltNetwork:
    """Build the network with its random or pretrained weights, on the run's device and with its train.precision."""
    config = run.config
    network = random_network(config, run.info, run.weights_seed, run.schema)
    pretrained = None
    if config.pretrained is not None:
        pretrained = load_weights(network, Path(config.pretrained), config.pretrained_sha256)
    digest, parameters = weights_digest(network), count_parameters(network)
    network.to(run.device)
    speed_up(network, config.train, run.device)
    return BuiltNetwork(network, parameters, digest, pretrained)


@dataclass(frozen=True)
class Experiment:
    """A masked network with its method and its images."""

    run: Resolved
    folder: Path
    """Folder of the run, for checkpoints/ and metrics.jsonl."""
    network: nn.Module
    method: Method
    train_images: TrainingImages
    validation_images: EvaluationImages | None
    test_images: EvaluationImages
    parameters: int
    weights_sha256: str
    """Digest of the weights before training."""
    pretrained: WeightMatch | None = None
    mask: MaskMatch | None = None
    """Match with the layers of the mask of mask=; None without it."""
    group: ProcessGroup = SINGLE_PROCESS
    check_stop: Callable[[], None] = lambda: None
    """Called before each batch of an evaluation; raises InterruptedRun to stop there."""

    @property
    def config(self) -> Config:
        """The config of the run."""
        return self.run.config

    @property
    def device(self) -> str:
        """The kind of device: cpu, cuda or mps."""
        return self.run.device

    def evaluate(self, images: EvaluationImages) -> Metrics:
        """Return the metrics of the network in its current state, on `images`; each rank evaluates its shard."""
        return evaluate(
            self.network,
            images,
            self.device,
            self.group.all_reduce_sum,
            self.check_stop,
            measures(self.config),
            self.group.all_gather,
        )

    def recalibrate(self) -> None:
        """Recompute batch norm's statistics from train.norm_batches training batches; do nothing where that is 0."""
        recalibrate(self.network, self.run, self.train_images)

    def kept_state(self) -> dict[str, Tensor]:
        """Return the tensors of the network that a checkpoint holds, by name."""
        changes_all = self.method.changes_weights or not weights_from_seed(self.config)
        return trained_state(self.network, frozen=changes_all)

    def save(self, name: str, epoch: int, **more: Any) -> None:
        """Write the checkpoint `name`, after `epoch` epochs, with further entries `more`; only rank 0 writes."""
        if self.group.is_main:
            identity = {checkpoints.RUN: id_of(self.config)}
            state = {"epoch": epoch, "trained": self.kept_state(), **identity, **more}
            checkpoints.save(self.folder / "checkpoints" / name, state)


def recalibrate(network: nn.Module, run: Resolved, images: TrainingImages) -> None:
    """Recompute batch norm's statistics from the first train.norm_batches batches of epoch 0, augmented as in training.

    The batches are always the same and earlier statistics are discarded, so that the result is a function of the
    network. It stays in the network and is saved in checkpoints: training writes running statistics, but never reads
    them.
    """
    count = run.config.train.norm_batches
    if count:
        whole = shared(images, WHOLE)
        recalibrate_batch_norm(network, islice(whole.epoch(run.data_seed, 0), count))


def masked(
    built: BuiltNetwork, run: Resolved, folder: Path, loaders: Loaders, group: ProcessGroup = SINGLE_PROCESS
) -> Experiment:
    """Mask `built.network` in place, with the mask of mask=, and return the experiment as before the first step."""
    method, config = apply_method(built.network, run.config), run.config
    mask = None
    if config.mask is not None:
        search = search_of(config)
        path = Path(config.mask) if search is None else folder_of(search)
        mask = give_mask(built.network, method, read_mask(path, config.mask_sha256))
    return Experiment(
        run,
        folder,
        built.network,
        method,
        loaders.train,
        loaders.validation,
        loaders.test,
        built.parameters,
        built.weights_sha256,
        built.pretrained,
        mask,
        group,
    )
