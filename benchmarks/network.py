"""Networks filled, masked and stepped as a run does it, from a few words."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.sort_mask import SortRule
from hidden_subnet.config.settings import Config, MethodSettings, Precision, Pruning, Structure, Train, setting
from hidden_subnet.masks.layers import ScoreRule, fill_scores, mask_layers, masked_layers
from hidden_subnet.masks.selection import LayerSelection, MaskWeight, TopKSelection
from hidden_subnet.masks.structure import StructuredSelection, does_not_divide
from hidden_subnet.masks.topk import SelectionBuffers, kept_count
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.biprop import BipropRule
from hidden_subnet.methods.edge_popup import EdgePopupRule, Transform
from hidden_subnet.methods.multicoat import CoatSelection, coat_rates
from hidden_subnet.methods.signed import SignedRule
from hidden_subnet.models.inits import fill
from hidden_subnet.models.networks import build
from hidden_subnet.training.acceleration import speed_up
from hidden_subnet.training.metrics import MetricSums
from hidden_subnet.training.trainer import Trainer

PRUNE_RATE = 0.5
Shape = tuple[int, int, int]
RuleFor = Callable[[int], ScoreRule]
CIFAR: Shape = (3, 32, 32)


def ours(buffers: SelectionBuffers | None = None) -> RuleFor:
    """All layers share the buffers, as in a run."""
    shared = buffers or SelectionBuffers()
    return lambda n: EdgePopupRule(TopKSelection(kept_count(n, PRUNE_RATE), shared))


def by_sorting() -> RuleFor:
    return lambda n: SortRule(kept_count(n, PRUNE_RATE))


def of_methods() -> dict[str, RuleFor]:
    """The rules of methods by name, all layers of each with buffers in common, and those of structured masks."""
    shared = SelectionBuffers()

    def top(n: int, rate: float = PRUNE_RATE, *, by_value: bool = False) -> TopKSelection:
        return TopKSelection(kept_count(n, rate), shared, by_value=by_value)

    def structured(structure: Structure) -> RuleFor:
        return lambda n: EdgePopupRule(WhereDivided(Pruning(name="layerwise", structure=structure), n))

    return {
        "edge_popup": lambda n: EdgePopupRule(top(n)),
        "signed": lambda n: SignedRule(top(n)),
        "biprop": lambda n: BipropRule(top(n)),
        "iterand": lambda n: EdgePopupRule(top(n, by_value=True), Transform.identity),
        "multicoat": lambda n: EdgePopupRule(CoatSelection([top(n, rate) for rate in coat_rates(PRUNE_RATE, 3, 0.3)])),
        "n_m": structured(Structure.n_m),
        "block": structured(Structure.block),
    }


class WhereDivided:
    """The selection of a structure, or of all n weights in a layer that it does not divide."""

    def __init__(self, pruning: Pruning, n: int) -> None:
        self.pruning = pruning
        self.structured, self.all = StructuredSelection(pruning, PRUNE_RATE, by_value=False), TopKSelection(n)

    def _chosen(self, scores: Tensor) -> LayerSelection:
        return self.all if does_not_divide(scores.shape, self.pruning) else self.structured

    def mask(self, scores: Tensor) -> Tensor:
        return self._chosen(scores).mask(scores)

    def select(self, scores: Tensor) -> MaskWeight:
        return self._chosen(scores).select(scores)


def network(
    name: str,
    width: float,
    rule_for: RuleFor | None,
    *,
    shape: Shape = CIFAR,
    classes: int = 10,
    bf16: bool = False,
    channels_last: bool = False,
    device: str = "cpu",
) -> nn.Module:
    """Return the network with a rule in each layer; without one, the network whose weights are trained."""
    model: nn.Module = build(name, width, shape, classes)
    fill(model, "signed_constant", "fan_in", 1.0, seed=0)
    model.to(device)
    speed_up(model, Train(precision=Precision.bf16 if bf16 else Precision.fp32, channels_last=channels_last), device)
    if rule_for is not None:
        mask_layers(model)
        for _, layer in masked_layers(model):
            layer.rule = rule_for(layer.weight.numel())
        fill_scores(model, seed=0, stream="scores")
    return model


def learning_rate_of(model: nn.Module) -> float:
    """A real learning rate for scores, whose thresholds have to move, and for weights one that leaves them.

    With a real one the dense network soon has only dead ReLUs here, and to pool zeros takes half the time, as the
    processor foresees every comparison.
    """
    return 0.1 if masked_layers(model) else 1e-6


def optimizer_of(model: nn.Module) -> SGD:
    """The optimizer that a run has, for loops that are not ours."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return SGD(trained, lr=learning_rate_of(model), momentum=0.9, weight_decay=1e-4)


@dataclass(kw_only=True, slots=True)
class GivenRulesSettings(MethodSettings):
    name: str = setting("given_rules", id="always")


class GivenRules(Method):
    """Leaves the layers the rules that they have, and adds nothing to a step."""

    settings = GivenRulesSettings
    trains = "scores"
    has_prune_rate = False

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__(network, config or Config())

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        return dict(self.layers)[path].rule


def trainer_of(
    model: nn.Module,
    method: Method | None = None,
    *,
    batch_size: int,
    device: str = "cpu",
    compile: bool = False,
    cuda_graph: bool = False,
) -> Trainer:
    """The trainer of a run; without a `method` the rules of the layers stay what they are."""
    train = Train(
        lr=learning_rate_of(model),
        momentum=0.9,
        weight_decay=1e-4,
        schedule="constant",
        batch_size=batch_size,
        compile=compile,
        cuda_graph=cuda_graph,
    )
    return Trainer(model, method or GivenRules(model), train, device)


def batch_of(size: int, shape: Shape = CIFAR, device: str = "cpu") -> tuple[Tensor, Tensor]:
    return torch.randn(size, *shape, device=device), torch.arange(size, device=device) % 10


def stepper(model: nn.Module, batch: tuple[Tensor, Tensor], *, compile: bool = False) -> Callable[[], None]:
    """A step of the trainer on the same batch."""
    device = str(batch[0].device)
    trainer = trainer_of(model, batch_size=len(batch[1]), device=device, compile=compile)

    def step() -> None:
        trainer.metrics = MetricSums(device)
        trainer.train_epoch([batch])
        # Arithmetic with nan or inf takes another time than a training that works.
        assert math.isfinite(trainer.metrics.means().loss)

    return step


def step_of(
    name: str, width: float, batch: int, rule_for: RuleFor | None, *, bf16: bool = False, channels_last: bool = False
) -> Callable[[], None]:
    """One step on the CPU with images of CIFAR's size."""
    return stepper(network(name, width, rule_for, bf16=bf16, channels_last=channels_last), batch_of(batch))


def compiled_step_of(name: str, width: float, batch: int, rule_for: RuleFor) -> Callable[[], None]:
    """Compiled already; only the network that was compiled last in this process stays so."""
    step = stepper(network(name, width, rule_for), batch_of(batch), compile=True)
    step()
    return step
