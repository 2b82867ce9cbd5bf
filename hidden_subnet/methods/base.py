"""The base class of all methods: ways to find a subnetwork, and baselines.

A new method is one file in this folder and one yaml in conf/method/. The file has a dataclass of settings, a rule
(which computes the masked weight from scores and weight) and a class with its traits and the hooks that it overrides:

    @register(METHODS, "my_method")
    class MyMethod(Method):
        settings = MySettings
        trains = "scores"

        def rule(self, selection, path):
            return MyRule(selection)

The hooks are listed in the order in which they are called: those of an epoch and of a step by `Trainer`
(hidden_subnet/training/trainer.py), `prepare`, `on_evaluation`, `metrics` and the state by training/run.py.

A method that draws random numbers draws them from `self.generator(step, path)`: a function of the step and the layer,
so that a resumed run draws the same. `hidden_subnet.assert_resumes` tells whether it does.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from torch import Generator, Tensor, nn

from hidden_subnet.config.identity import seed_of
from hidden_subnet.config.layer_rates import final_rate, layer_rates, rates_on_the_way
from hidden_subnet.config.registries import ALLOCATIONS, METHODS, MethodTraits, register_own
from hidden_subnet.config.settings import Config, MethodSettings, Structure
from hidden_subnet.masks.allocation import Allocation, AllocationRequest, prune_rate_at
from hidden_subnet.masks.layers import KeepAll, MaskedLayer, ScoreRule, masked_layers
from hidden_subnet.masks.selection import LayerSelection, TopKSelection
from hidden_subnet.masks.structure import StructuredAllocation
from hidden_subnet.models.inits import fans
from hidden_subnet.seeding import generator

Batch = tuple[Tensor, Tensor]
"""Normalised images, float32 (B, C, H, W), and labels, int64 (B,), on the run's device."""


M = TypeVar("M", bound=type[MethodTraits])


def register_method(name: str) -> Callable[[M], M]:
    """Return a decorator that makes `method=<name>` choose a subclass of Method; one of the user's own needs no yaml.

    >>> @hs.register_method("small_scores")
    ... class SmallScores(hs.EdgePopup):
    ...     def penalty(self):
    ...         return 1e-5 * sum(layer.scores.abs().sum() for _, layer in self.layers)

    Raises TypeError for another class, ValueError for a name in use.
    """

    def enter(method: M) -> M:
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise TypeError(f"register_method({name!r}): needs a class that inherits from hidden_subnet.Method")
        register_own("method", METHODS, name, method)(method)
        return method

    return enter


class Method(MethodTraits):
    """The base of all methods. Its hooks keep the allocation at the prune rate of the epoch, and do nothing else.

    >>> class Noisy(hs.EdgePopup):
    ...     def on_step_start(self, step):
    ...         super().on_step_start(step)
    ...         noise = torch.randn(3, generator=self.generator(step))
    """

    settings: ClassVar[type[MethodSettings]] = MethodSettings

    def __init_subclass__(cls) -> None:
        """Raise ValueError for a wrong trait or the wrong name of a hook, which would have no effect."""
        for problem in _mistakes(cls):
            raise ValueError(f"{cls.__module__}.{cls.__name__}: {problem}")

    def __init__(self, network: nn.Module, config: Config) -> None:
        """Give each masked layer its rule. `network` is masked, with its first scores (methods/apply.py)."""
        self.network = network
        self.config = config
        self.layers: list[tuple[str, MaskedLayer]] = masked_layers(network)
        """Path and layer of each masked weight, in the order of the network."""
        self.seed = seed_of(config, "scores")
        self.allocation: Allocation | None = None
        if self.layers and self.prunes_by_rate(config.method):
            self.allocation = self._allocate(final_rate(config))
            selections = list(self.allocation.selections())
        else:
            selections = [TopKSelection(layer.weight.numel()) for _, layer in self.layers]
        for (path, layer), selection in zip(self.layers, selections, strict=True):
            layer.rule = self.rule(selection, path)

    def generator(self, step: int, path: str = "") -> Generator:
        """Return a new generator, on the CPU, whose numbers are a function of the run's seed, the step and the layer.

        step: a step, or for a draw at the start of an epoch its number. path: that of the layer. Numbers for a GPU are
        drawn on the CPU and moved, so that they are the same on all devices.
        """
        return generator(self.seed, self.config.method.name, step, path)

    def _allocate(self, prune_rate: float) -> Allocation:
        pruning, layers = self.config.pruning, [layer for _, layer in self.layers]
        own = None
        if pruning.rates:
            finals = layer_rates(self.config, [path for path, _ in self.layers])
            own = rates_on_the_way(finals, final_rate(self.config))
        scores = [layer.scores for layer in layers]
        # Scores that start as copies of the weights take their place: they are trained and masked.
        weights = scores if self.score_stream is None else [layer.weight for layer in layers]
        by_value = self.keeps_highest(self.config.method)
        if pruning.structure is not Structure.weight:
            return StructuredAllocation(scores, prune_rate, pruning, by_value=by_value)
        entry = ALLOCATIONS[pruning.name]
        make = entry.make_by_kernels if self.config.train.mask_kernels and entry.make_by_kernels else entry.make
        made: Allocation = make(
            AllocationRequest(
                scores=scores,
                weights=weights,
                fan_ins=[fans(layer.weight)[0] if self.scores_by_fan_in else 1 for layer in layers],
                prune_rate=prune_rate,
                floor=pruning.floor,
                by_value=by_value,
                layer_rates=own,
                settings=pruning,
            )
        )
        return made

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return the rule of the layer at `path`: (scores, weight) -> masked weight, all of shape (out, in, *kernel).

        `selection` keeps the K weights that the allocation decides, or all where the method has no prune rate.
        """
        return KeepAll()

    def start_from(self, checkpoint: Callable[[str | int], dict[str, Tensor]]) -> None:
        """Start from the run that `parent` names, once per run, before `prepare`; a resumed run skips it.

        checkpoint: by the name first, best or last, or the number of an epoch that `keeps_epoch` has kept, the tensors
        of the parent's network on the CPU by name. What it sets needs the trait `changes_weights`.
        """

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Prepare the first step, once per run (a resumed run skips it): scores from a few batches, or a first phase.

        `batches` are those of epoch 0, augmented as in training. A method that sets weights, or scores that are not
        trained, has the trait `changes_weights`.
        """

    def on_epoch_start(self, epoch: int) -> None:
        """Set what depends on the epoch, counted from 0.

        A run that resumes within an epoch calls this again for it, so it must have the same effect twice.
        """
        if self.allocation is not None:
            self.allocation.set_rate(self.rate_in(epoch))

    def on_step_start(self, step: int) -> None:
        """Prepare the forward pass of a step; `step` counts from 0 since the run started."""
        if self.allocation is not None:
            self.allocation.refresh()

    def penalty(self) -> Tensor | None:
        """Return a scalar to add to the loss of each step; None adds nothing."""
        return None

    def on_step_end(self, step: int) -> None:
        """Change scores or weights after the optimizer's step `step`, counted as in on_step_start.

        A method that changes weights has the trait `changes_weights`. One that reads masks after the scores have
        changed calls `self.allocation.refresh()` before.
        """

    def on_evaluation(self, epochs_done: int) -> None:
        """Set the masks to those after `epochs_done` epochs, before an evaluation and after a checkpoint was loaded."""
        self.on_epoch_start(max(0, epochs_done - 1))
        if self.allocation is not None:
            self.allocation.refresh()

    def keeps_epoch(self, epoch: int) -> bool:
        """Return whether to keep a checkpoint after `epoch` epochs, from which other runs start."""
        return False

    def metrics(self) -> dict[str, float]:
        """Return further columns, name to number, for the row of the epoch in metrics.jsonl."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors and plain values that a resume needs besides scores, weights and optimizer state.

        Only the checkpoint to resume from holds them: masks, which `load` and `evaluate=` compute again, must not
        depend on them.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, so that a resumed run has the same bits as an uninterrupted one."""

    @property
    def first_rated_epoch(self) -> int:
        """Number of finished epochs from which on the best is chosen; before, the prune rate is not the final one."""
        return 1 + self.dense_epochs(self.config.method) + self.ramp_epochs

    @property
    def ramp_epochs(self) -> int:
        """The epoch, counted from the end of dense ones, from which on the prune rate is the final one."""
        return self.config.pruning.ramp_epochs if self.prunes_by_rate(self.config.method) and self.follows_ramp else 0

    def rate_in(self, epoch: int) -> float:
        """Return the prune rate of an epoch, counted from 0."""
        pruning = self.config.pruning
        return prune_rate_at(
            max(0, epoch - self.dense_epochs(self.config.method)),
            prune_rate=final_rate(self.config),
            start_rate=pruning.start_rate,
            ramp_epochs=self.ramp_epochs,
            ramp=pruning.ramp,
        )


HOOKS = [name for name in vars(Method) if not name.startswith("_")]
TRAITS = ["trains", *(name for name in vars(MethodTraits) if not name.startswith("_"))]
KNOWN = [*HOOKS, *TRAITS]
CALLED = ["__init__", *(name for name in HOOKS if inspect.isfunction(vars(Method)[name]))]
MOMENTS = [name for name in HOOKS if name.startswith("on_")]
FLAGS = [name for name, value in vars(MethodTraits).items() if isinstance(value, bool)]


def _mistakes(kind: type[Method]) -> Iterator[str]:
    """Mistakes in the class of a method that would otherwise show late, or never."""
    values: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        values |= vars(base)
    settings = values["settings"]
    if settings is MethodSettings or not (isinstance(settings, type) and issubclass(settings, MethodSettings)):
        yield "settings must be a dataclass of its own that inherits from MethodSettings"
    elif "__dataclass_fields__" not in vars(settings):
        yield f"settings: {settings.__name__} must be a dataclass; write @dataclass above it"
    if values.get("trains") not in ("scores", "weights", "both", "nothing"):
        yield f"trains={values.get('trains')!r}: must be scores, weights, both or nothing"
    for name in FLAGS:
        if not isinstance(values[name], bool):
            yield f"{name}={values[name]!r}: must be True or False"
    if not (values["score_stream"] is None or isinstance(values["score_stream"], str)):
        yield f"score_stream={values['score_stream']!r}: must be the name of a random stream, or None"
    if values["masks"] and values["rule"] is Method.rule:
        yield "rule must be defined: it computes the masked weight (masks=False is for a method without masks)"
    if not values["masks"] and values["has_prune_rate"]:
        yield "has_prune_rate must be False, since nothing is removed where masks=False"
    if not values["masks"] and values.get("trains") in ("scores", "both"):
        yield f"trains={values['trains']!r}: there are no scores where masks=False; choose weights or nothing"
    if values["has_given_mask"] and (values["has_prune_rate"] or values["score_stream"] is not None):
        yield "has_given_mask=True: needs has_prune_rate=False and score_stream=None, since its scores are the mask"
    if values["masks"] and values["only_last_layer"]:
        yield "only_last_layer=True: needs masks=False"
    for name, hook in vars(kind).items():
        if name in CALLED and inspect.isfunction(hook):
            given = [*inspect.signature(vars(Method)[name]).parameters]
            try:
                inspect.signature(hook).bind(*given)
            except TypeError:
                takes = ", ".join(map(str, inspect.signature(hook).parameters.values()))
                yield f"{name} takes ({takes}), and is called as in: def {name}({', '.join(given)})"
        if name not in KNOWN and (near := difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.85)):
            yield f"{name} is not a hook or trait of Method; did you mean {near[0]}?"
        elif name not in KNOWN and name.startswith("on_"):
            yield f"{name} is not a hook of Method, so nothing calls it; choose {', '.join(MOMENTS)}"
