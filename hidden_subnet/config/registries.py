"""Registries: for each kind of part, a dict from names to the parts that a config can choose.

The dicts are empty here. The file of a part (in models/, data/, methods/, ...) registers it when it is imported. So a
new part is one file and, where it is an option of a config group, one yaml file in conf/. `load_parts` imports all.
"""

import difflib
import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.settings import (
    MISSING,
    Config,
    CustomModel,
    Data,
    Library,
    MethodSettings,
    Model,
    Pruning,
    Train,
    default_value,
)
from hidden_subnet.signals import interrupt_held

T = TypeVar("T")

# Names instead of imports, since these folders import this file. Each imports its own files.
PARTS = ("models", "data", "masks", "methods", "training", "trackers")


@functools.cache
def load_parts() -> None:
    """Import the folders whose files fill the dicts below; the first call imports torch."""
    with interrupt_held():
        for folder in PARTS:
            importlib.import_module(f"hidden_subnet.{folder}")


def import_files(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that a new file is found without another line of code."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


NO_NAMES = {"nan", "inf", "null", "true", "false"}
"""Words that are no texts on the command line."""


def register(registry: dict[str, T], name: str) -> Callable[[T], T]:
    """Return a function, or decorator, that enters a part under `name`.

    It raises ValueError for a name in use, and for one that cannot be typed: nan is a number to Hydra, a comma a sweep.
    """
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", name, re.ASCII) or name.lower() in NO_NAMES:
        raise ValueError(f"{name!r}: no name of a part, which has letters, digits and _, as in 'my_part'")

    def enter(part: T) -> T:
        if name in registry:
            where = f" ({part.__module__}.{part.__name__})" if isinstance(part, type) else ""
            raise ValueError(f"{name} is in use already{where}; give the part another name")
        registry[name] = part
        return part

    return enter


OWN: dict[tuple[str, str], str] = {}
"""Parts of the user's own, which the public decorators register, as ("model", "my_net"), and the module that did
(config/own_parts.py)."""


def register_own(kind: str, registry: dict[str, T], name: str, definition: Callable[..., Any]) -> Callable[[T], T]:
    """Return `register` of a part of the user's own.

    kind: what is typed to choose it. definition: the user's function or class.
    """

    def enter(part: T) -> T:
        register(registry, name)(part)
        OWN[kind, name] = definition.__module__
        return part

    return enter


class MethodTraits:
    """The traits of a method, on which other parts depend; hidden_subnet/methods/base.py adds its hooks."""

    settings: ClassVar[type[MethodSettings]]
    trains: ClassVar[Literal["scores", "weights", "both", "nothing"]]
    """The parameters that the optimizer changes. both: scores and weights of masked layers, where the rule passes the
    gradient to one of them at a time."""
    masks: ClassVar[bool] = True
    """False: no weight is removed, and scores, prune_rate and init.scale have no effect."""
    has_prune_rate: ClassVar[bool] = True
    """False, of a method that masks: the density is learned."""
    follows_ramp: ClassVar[bool] = True
    """True: the mask changes during training, so that pruning.ramp_epochs has an effect."""
    changes_weights: ClassVar[bool] = False
    """True: weights, or scores that are not trained, change without a gradient (a redraw, or scores from `prepare`).
    Checkpoints then hold the whole network; otherwise what is not trained is drawn again from the seed."""
    score_stream: ClassVar[str | None] = "scores"
    """Name of the random stream of the first scores; None: the scores start as the weights."""
    scores_by_fan_in: ClassVar[bool] = True
    """False: the scores of all layers have one scale, so that pruning=global compares them as they are, and not times
    sqrt(fan_in)."""
    only_last_layer: ClassVar[bool] = False
    """True: only the last conv or linear layer is trained."""
    has_given_mask: ClassVar[bool] = False
    """True: its mask is that of mask=, which never changes; without a prune rate, and with the mask as its scores."""
    draws_in_steps: ClassVar[bool] = False
    """True: each step draws random numbers on the host, which a recorded step (train.cuda_graph) cannot."""
    prunes_in_rounds: ClassVar[bool] = False
    """True: it asks for masks at other rates than prune_rate too, without a ramp, which pruning.structure=n_m lacks."""
    has_controls: ClassVar[bool] = False
    """True: `python -m hidden_subnet controls` applies, since the size of its learned scores decides the mask."""

    @classmethod
    def is_trained(cls) -> bool:
        """Return whether there is anything to train."""
        return cls.trains != "nothing"

    @classmethod
    def prunes_by_rate(cls, settings: Any) -> bool:
        """Return whether prune_rate says how many weights the method with these `settings` removes."""
        return cls.has_prune_rate

    @classmethod
    def ranks_drawn_scores(cls, settings: Any) -> bool:
        """Return whether scores are drawn, learned and ranked, so that mask= can put the first ones in order."""
        return cls.trains in ("scores", "both") and cls.score_stream is not None and cls.prunes_by_rate(settings)

    @classmethod
    def keeps_highest(cls, settings: Any) -> bool:
        """Return whether the weights with the highest scores are kept, not those with the largest |score|."""
        return False

    @classmethod
    def trains_weights(cls) -> bool:
        """Return whether the optimizer moves weights, in all epochs or in some; scores that start as them are weights.

        What is not masked (norm layers, biases, layers that stay dense) is then trained with them, and else frozen.
        """
        return cls.trains in ("weights", "both") or (cls.trains == "scores" and cls.score_stream is None)

    @classmethod
    def trains_unmasked(cls) -> bool:
        """Return whether what is not masked, such as the factors of batch norm, is trained in every epoch."""
        return cls.trains_weights() and cls.trains != "both" and not cls.only_last_layer

    @classmethod
    def weights_stay(cls) -> bool:
        """Return whether a run ends with the weights that it started with."""
        return not cls.trains_weights() and not cls.changes_weights

    @classmethod
    def bits_per_kept(cls, settings: Any) -> float:
        """Return how many bits tell the value of a kept weight, beside seed and mask; 32 where it is trained."""
        return 0.0 if cls.weights_stay() else 32.0

    @classmethod
    def problems(cls, config: Config) -> Iterator[str]:
        """Yield a line for each rule of the method's own that `config` breaks: the value, the rule, what to do."""
        yield from ()

    @classmethod
    def unused_settings(cls, settings: Any) -> set[str]:
        """Return the names of its own settings that change nothing as `settings` are; they are not part of the id."""
        return set()

    @classmethod
    def parent(cls, config: Config) -> Config | None:
        """Return the config of the run from which that of `config` starts, as follows from its settings; None: none.

        That run is executed before it, and `Method.start_from` reads it.
        """
        return None

    @classmethod
    def schema(cls, settings: Any) -> int:
        """Return a number that is raised where the same `settings` give another result than before: it changes the id.

        Only for runs whose result changes; 1 is that of the first version.
        """
        return 1

    @classmethod
    def dense_epochs(cls, settings: Any) -> int:
        """Return the number of first epochs in which no weight is removed; a ramp starts after them."""
        return 0


@dataclass(frozen=True)
class ModelEntry:
    """A network by name."""

    build: Callable[[Model, DataInfo, int], Any]
    """(settings, data, seed) -> nn.Module, which maps images (B, C, H, W) to logits (B, classes). Conv and linear
    weights are drawn afterwards; `seed` is for other parameters that the network draws."""
    problems: Callable[[Config, DataInfo], Iterator[str]]
    """Yields a line for each rule of the network that a config breaks."""
    weights: Callable[[Model, DataInfo], int | None]
    """(settings, data) -> number of conv and linear weights; None where only the built network has it."""
    has_norm: bool
    """True: there are norm layers (or biases), on which norm_decay, norm_batches and devices act."""
    has_width: bool = True
    """True: model.width has an effect."""
    has_norm_choice: bool = False
    """True: model.norm has an effect."""
    has_activation: bool = False
    """True: model.activation has an effect."""
    draws_in_steps: bool = False
    """True: a training step draws random numbers (dropout), so that torch is seeded for each step."""
    masks_parameters: bool = False
    """True: weights may be read without calling their layer, so that they are masked as parameters."""
    settings: type[Model] = Model
    """The settings of the network: those of all networks, or a subclass with more."""
    probe: Callable[[Model, DataInfo, int], Any] | None = None
    """(settings, data, images in the smallest batch) -> the network on the meta device, after a pass in training and
    one in evaluation mode. Raises ValueError, in one line, where one fails. None: a config that passes its checks
    always works."""


@dataclass(frozen=True)
class DataEntry:
    """A data set by name."""

    info: DataInfo | None
    """Sizes and counts. For image folders the published ones, which may differ from those found; None for data of the
    user's own, which are known once they are made."""
    read: Callable[[Path], tuple[Any, Any, Any, Any]] | None = None
    """(root) -> training images uint8 (N, C, H, W), labels int64 (N,), test images, test labels. None: the images
    are files in folders, read one by one."""
    prepare: Callable[[Path], None] = lambda root: None
    """Downloads the files that are missing in `root`. Raises DataError."""
    content: Callable[[Path], str] = lambda root: ""
    """(root) -> digest of the files' content, a part of the run's id; "" where it is the published one, or where the
    files will be downloaded. For data sets in memory; see data/found_images.py for image folders. Raises DataError."""
    elsewhere: Callable[[Path], str] = lambda root: ""
    """(root) -> the folder outside of `root` from which the files are taken, or ""."""
    has_files: bool = True
    """False: it comes with the installation, and data.root has no effect."""
    folders: Sequence[str] = ()
    """Image folders: names of the folder, looked for in `root`; then `root` itself is tried."""
    own: Callable[[Data], Any] | None = None
    """Data of the user's own: (settings) -> hidden_subnet.data.catalog.Images, made once and kept. Raises DataError."""
    forget: Callable[[Data], None] = lambda data: None
    """Lets `own` make the images again, since the files that it reads may have changed."""
    settings: type[Data] = Data
    """The settings of the data: those of all data sets, or a subclass with more."""

    @property
    def in_folders(self) -> bool:
        """True: the images are files in folders, read one by one."""
        return self.read is None and self.own is None

    def raw_info(self, data: Data) -> DataInfo:
        """Return sizes and counts before the images are padded or resized. Raises DataError."""
        if self.own is not None:
            made: DataInfo = self.own(data).info
            return made
        assert self.info is not None
        return self.info


@dataclass(frozen=True)
class InitEntry:
    """A distribution of the random weights (hidden_subnet/models/inits.py)."""

    std: Callable[[Any, str], float]
    """(weight, mode) -> standard deviation."""
    draw: Callable[[Any, float, Any], None]
    """(weight, std, generator): fills the weight in place."""
    fixes_fan: bool = False
    """True: init.mode has no effect."""
    scales: bool = True
    """True: init.scale=density is allowed."""
    scales_as_reference: bool = False
    """True: the code of Ramanujan et al. scales it, so that init.scale=reference is allowed."""
    same_magnitude: bool = False
    """True: all weights of a layer have the same magnitude, so that none is the largest."""


@dataclass(frozen=True)
class AllocationEntry:
    """An allocation of the prune rate to the layers (hidden_subnet/masks/allocation.py)."""

    make: Callable[..., Any]
    """masks.allocation.AllocationRequest -> Allocation."""
    settings: type[Pruning] = Pruning
    """The settings of the allocation: those of all, or a subclass with more."""
    make_by_kernels: Callable[..., Any] | None = None
    """As `make`, by the kernels of train.mask_kernels; None where there are none."""
    has_floor: bool = False
    """True: pruning.floor has an effect."""
    takes_rates: bool = False
    """True: pruning.rates may give single layers a rate of their own."""
    require: Callable[[Sequence[int], float, float], object] | None = None
    """(layer sizes, prune_rate, floor): raises ValueError where too few weights are kept."""
    try_shapes: Callable[[Sequence[tuple[int, ...]], float, Pruning], object] | None = None
    """(weight shapes, prune_rate, settings): raises ValueError where a function of the user's own fails for them."""


@dataclass(frozen=True)
class OptimizerEntry:
    """An optimizer by name."""

    make: Callable[[list[dict[str, Any]], Train], Any]
    """(parameter groups, settings) -> torch.optim.Optimizer."""
    has_momentum: bool = True
    """True: train.momentum and train.nesterov have an effect."""
    problem: Callable[[Train], str] = lambda train: ""
    """(settings) -> what is wrong with train.optimizer_args, or ""."""
    arguments: tuple[str, ...] = ()
    """Names that train.optimizer_args may hold."""


@dataclass(frozen=True)
class ScheduleEntry:
    """A learning-rate schedule by name."""

    rate: Callable[[int, Train], float]
    """(epoch, counted from 0 and after the warm-up; settings) -> learning rate."""
    has_milestones: bool = False
    """True: train.milestones and train.gamma have an effect."""


@dataclass(kw_only=True, slots=True)
class NoSettings:
    """Base of the settings of a metric."""


@dataclass(frozen=True)
class MetricEntry:
    """A metric of the user's own, measured at every evaluation (hidden_subnet/training/own_metrics.py)."""

    measure: Callable[..., float]
    """(logits float32 (N, classes), labels int64 (N,), **settings), both on the CPU -> a number, or NaN where it has no
    value. Raises ValueError for what the user's function raises, or where it returns no number."""
    settings: type[Any] = NoSettings
    """A dataclass with a field for each further argument."""

    def defaults(self) -> dict[str, Any]:
        """Return the further arguments with their defaults, a closed choice as its text."""
        values = {each.name: default_value(each) for each in fields(self.settings)}
        return {name: value.name if isinstance(value, Enum) else value for name, value in values.items()}


MODELS: dict[str, ModelEntry] = {}
DATA: dict[str, DataEntry] = {}
INITS: dict[str, InitEntry] = {}
ALLOCATIONS: dict[str, AllocationEntry] = {}
METHODS: dict[str, type[MethodTraits]] = {}
OPTIMIZERS: dict[str, OptimizerEntry] = {}
SCHEDULES: dict[str, ScheduleEntry] = {}
METRICS: dict[str, MetricEntry] = {}
PLOTS: dict[str, Callable[[Any, Any], None]] = {}
"""Plots of the user's own: (results as a DataFrame, matplotlib axes). All are drawn, none is chosen."""
TARGETS: dict[str, Callable[..., Any]] = {}
"""Classes and functions of the user's own that make a network, for model=custom."""
TRACKERS: dict[str, Any] = {}
"""Values are hidden_subnet.trackers.TrackerEntry."""


REGISTRIES: dict[str, dict[str, Any]] = {
    "method": METHODS,
    "init": INITS,
    "data": DATA,
    "pruning": ALLOCATIONS,
    "train.optimizer": OPTIMIZERS,
    "train.schedule": SCHEDULES,
    "model": MODELS,
    "metrics": METRICS,
    "model.target": TARGETS,
    "plot": PLOTS,
}
"""The registries of what a config chooses, by what is typed to choose: method=edge_popup. A run has one of each, but
any number of metrics, and a target with model=custom only; plots are of a whole sweep."""


def chosen_parts(config: Config) -> list[tuple[str, str]]:
    """Return what is typed and the name of each part that the config chooses, in the order of REGISTRIES."""
    chosen = [
        config.method.name,
        config.init.name,
        config.data.name,
        config.pruning.name,
        config.train.optimizer,
        config.train.schedule,
        network_name(config.model),
    ]
    targets = [("model.target", config.model.target)] if isinstance(config.model, CustomModel) else []
    return [*zip(REGISTRIES, chosen, strict=False), *targets, *(("metrics", name) for name in config.metrics)]


class UnknownMethod(MethodTraits):
    """The traits of a method of the user's own whose file is not imported; runs are read with it, never executed."""

    settings = MethodSettings
    trains = "scores"


def method_traits(config: Config) -> type[MethodTraits]:
    """Return the traits of the config's method."""
    return METHODS.get(config.method.name, UnknownMethod)


def network_name(model: Model) -> str:
    """Return what is typed to choose the network: one name for all networks of another library."""
    return model.name if model.library is Library.own else model.library.name


def model_entry(model: Model) -> ModelEntry | None:
    """Return the entry of the network, one for all networks of another library; None for an unknown name."""
    return MODELS.get(network_name(model))


def info_of(data: Any) -> DataInfo:
    """Return shape, classes and counts of the images as the network gets them, for the settings `data` (settings.Data).

    Raises DataError for image folders that were not counted.
    """
    entry = DATA[data.name]
    return entry.raw_info(data).sized(data, in_folders=entry.in_folders)


def unknown_names(config: Config) -> Iterator[str]:
    """Yield a line for each name in `config` that its registry does not hold, with the nearest and the choices.

    A name that is not given is not wrong here.
    """
    for typed, name in chosen_parts(config):
        known = REGISTRIES[typed]
        if typed == "metrics":
            if name not in known:
                yield _unknown_metric(name)
        elif typed == "model.target":
            if name not in known:
                yield _unknown_target(name)
        elif typed != "model" and name != MISSING and name not in known:
            kind = typed.rpartition(".")[2]
            setting = typed if "." in typed else f"{typed}.name"
            near = nearest(name, known)
            advice = f"did you mean: {typed}={near}" if near else f"as in: {typed}={next(iter(known), MISSING)}"
            yield f"{setting}={name}: there is no such {kind} ({', '.join(known)}); {advice}"
    if config.model.name != MISSING and model_entry(config.model) is None:
        own = [each for each in MODELS if each not in Library.__members__]
        near = nearest(config.model.name, own) or f"torchvision model.name={config.model.name}"
        yield (
            f"model.name={config.model.name}: there is no such network ({', '.join(own)}; and torchvision's); "
            f"did you mean: model={near}"
        )


def _unknown_metric(name: str) -> str:
    near = nearest(name, METRICS)
    advice = f"did you mean: 'metrics=[{near}]'" if near else "as in: use=my_parts.py 'metrics=[my_metric]'"
    known = ", ".join(METRICS) or "a file of yours registers them"
    return f"metrics=[{name}]: there is no such metric ({known}); {advice}"


def _unknown_target(name: str) -> str:
    start = f"model.target={name}"
    if ":" in name:
        return f"{start}: only the command line names files to import, not a file of settings; type: {start}"
    if name.endswith(".py"):
        return f"{start}: names no class of the file; as in: {start}:Net"
    if "." in name:
        return f"{start}: a class stands behind a colon; type: {':'.join(start.rsplit('.', 1))}"
    if near := nearest(name, TARGETS):
        return f"{start}: is no class of a file that is named ({', '.join(TARGETS)}); type: model.target={near}"
    rule = "is no class of a file that is named" if name else "name the class too"
    return f"{start if name else 'model=custom'}: {rule}; as in: model.target=my_nets.py:{name or 'Net'}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` is most like, whatever its case, - and _; None where none is near."""
    wanted, known = plain(name), {plain(each): each for each in names}
    if not wanted:
        return None
    if wanted in known:
        return known[wanted]
    # Shortened or lengthened at one end: kaiming, resnet; 18; lr for train.lr; cosine_annealing.
    parts = [each for each in known if each.startswith(wanted) or each.endswith(wanted) or wanted.startswith(each)]
    parts = parts if len(wanted) > 1 else []
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.8) or sorted(parts, key=len)
    near = near or difflib.get_close_matches(wanted, known, n=1, cutoff=0.55)
    return known[near[0]] if near else None


def plain(name: str) -> str:
    """Return a name without what people write differently: case, - and _."""
    return re.sub(r"[-_\s]", "", name).lower()
