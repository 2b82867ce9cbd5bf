"""The hooks of a method: when they are called, that what they change is saved, and what the base class does itself."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from helpers.methods import batch, config_of, network_of, trainer_of, values
from helpers.runs import QUIET, assert_same_run, interrupt, rows_without_times, small, trained
from torch import Tensor, nn
from torch.optim import SGD

import hidden_subnet
from hidden_subnet.config.checks import check
from hidden_subnet.config.registries import METHODS, OPTIMIZERS, OptimizerEntry, register
from hidden_subnet.config.settings import Config, MethodSettings, Pruning, setting
from hidden_subnet.masks.layers import KeepAll, MaskedLinear, ScoreRule, mask_layers
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Batch, Method
from hidden_subnet.methods.edge_popup import EdgePopupRule
from hidden_subnet.seeding import generator
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.training.metrics import MetricSums

LAYERS = ["conv1", "conv2", "fc1", "fc2", "fc3"]


@dataclass(kw_only=True, slots=True)
class ToySettings(MethodSettings):
    name: str = setting("toy", id="always")
    share: float = setting(0.1, id="always")
    """Fraction of the pruned weights that are drawn again after each step."""


class Toy(Method):
    """Searches as edge-popup does, draws some of the pruned weights again in each step, and counts them.

    It overrides every hook, and notes the calls.
    """

    settings = ToySettings
    trains = "scores"
    changes_weights = True
    calls: ClassVar[list[str]] = []

    def __init__(self, network: nn.Module, config: Config) -> None:
        assert isinstance(config.method, ToySettings)
        self.share, self.redrawn = config.method.share, 0
        super().__init__(network, config)

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        self.calls.append(f"rule {path}")
        return EdgePopupRule(selection)

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Draw other first scores, in a range that follows from the images."""
        given = list(batches)
        self.calls.append(f"prepare {len(given)}")
        spread = torch.stack([images.std() for images, _ in given]).mean()
        for path, layer in self.layers:
            layer.scores.detach().copy_(spread * torch.randn(layer.weight.shape, generator=generator(0, "toy", path)))

    def on_epoch_start(self, epoch: int) -> None:
        self.calls.append(f"on_epoch_start {epoch}")
        super().on_epoch_start(epoch)

    def on_step_start(self, step: int) -> None:
        self.calls.append(f"on_step_start {step}")
        super().on_step_start(step)

    def penalty(self) -> Tensor | None:
        self.calls.append("penalty")
        return 0.001 * torch.stack([layer.scores.square().sum() for _, layer in self.layers]).sum()

    @torch.no_grad()
    def on_step_end(self, step: int) -> None:
        self.calls.append(f"on_step_end {step}")
        for path, layer in self.layers:
            source = generator(self.seed, "toy", step, path)
            chosen = torch.rand(layer.weight.shape, generator=source) < self.share
            chosen &= ~layer.rule.mask(layer.scores.detach())
            layer.weight[chosen] = torch.randn(int(chosen.count_nonzero()), generator=source)
            self.redrawn += int(chosen.count_nonzero())

    def on_evaluation(self, epochs_done: int) -> None:
        self.calls.append(f"on_evaluation {epochs_done}")
        assert self.allocation is not None
        self.allocation.refresh()

    def metrics(self) -> dict[str, float]:
        self.calls.append("metrics")
        return {"redrawn": self.redrawn}

    def state_dict(self) -> dict[str, Any]:
        self.calls.append("state_dict")
        return {"redrawn": self.redrawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls.append("load_state_dict")
        self.redrawn = state["redrawn"]


@pytest.fixture
def toy() -> Iterator[type[Toy]]:
    """The method `toy`, registered for one test."""
    Toy.calls.clear()
    register(METHODS, "toy")(Toy)
    yield Toy
    del METHODS["toy"]


def toy_config(out: Path, **train: Any) -> Config:
    """5 steps of 100 images, or of the 61 that are left, in each of 3 epochs."""
    return replace(small(out, **train), method=ToySettings())


# The order of the calls


class NotedMetrics(MetricSums):
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        Toy.calls.append("metrics")
        super().add(loss, logits, labels)


class NotedSGD(SGD):
    def zero_grad(self, set_to_none: bool = True) -> None:
        Toy.calls.append("zero_grad")
        super().zero_grad(set_to_none)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        Toy.calls.append("step")
        super().step(closure)


def test_the_hooks_of_a_step_are_called_in_the_promised_order(toy: type[Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = OptimizerEntry(lambda groups, train: NotedSGD(groups, lr=train.lr))
    monkeypatch.setitem(OPTIMIZERS, "noted", entry)
    network, method = network_of(config_of("toy"))
    trainer = trainer_of(network, method, optimizer="noted")
    trainer.metrics = NotedMetrics("cpu")
    network.register_forward_pre_hook(lambda module, inputs: toy.calls.append("forward"))
    cross_entropy = F.cross_entropy

    def loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        toy.calls.append("loss")
        logits.register_hook(lambda gradient: toy.calls.append("backward"))
        return cross_entropy(logits, labels, label_smoothing=label_smoothing)

    monkeypatch.setattr(F, "cross_entropy", loss)
    toy.calls.clear()
    trainer.state.step = 7
    trainer.train_step(*batch())
    assert toy.calls == [
        "on_step_start 7", "zero_grad", "forward", "loss", "penalty", "backward", "step", "on_step_end 7", "metrics"
    ]  # fmt: skip


def test_the_penalty_is_added_once_to_what_a_rank_minimises(toy: type[Toy]) -> None:
    network, method = network_of(config_of("toy"))
    trainer = trainer_of(network, method)
    penalty = 0.001 * sum(layer.scores.square().sum().item() for _, layer in method.layers)
    assert trainer.objective(torch.tensor(3.0)).item() == pytest.approx(3 + penalty)
    trainer.loss_factor = 2.0  # of several ranks
    assert trainer.objective(torch.tensor(3.0)).item() == pytest.approx(6 + penalty)


def test_an_epoch_begins_with_its_hook_and_counts_its_steps(toy: type[Toy]) -> None:
    network, method = network_of(config_of("toy"))
    trainer = trainer_of(network, method)
    toy.calls.clear()
    trainer.state.epoch, trainer.state.step = 2, 30
    trainer.train_epoch([batch(), batch()])
    assert toy.calls == [
        "on_epoch_start 2",
        "on_step_start 30", "penalty", "on_step_end 30",
        "on_step_start 31", "penalty", "on_step_end 31",
    ]  # fmt: skip
    assert (trainer.state.batch, trainer.state.step) == (2, 32)


def steps(numbers: range) -> list[str]:
    return [call for step in numbers for call in (f"on_step_start {step}", "penalty", f"on_step_end {step}")]


def test_the_hooks_of_a_run_written_out(toy: type[Toy], tmp_path: Path) -> None:
    config = toy_config(tmp_path, epochs=2)
    config = replace(config, data=replace(config.data, validation=0.0))  # 512 images in 6 steps; there is no best epoch
    check(config)

    def row_is_written(row: dict[str, Any]) -> None:
        toy.calls.append(f"row of epoch {row['epoch']}")

    outcome = execute(config, RunObserver(row_is_written, QUIET.on_step, QUIET.say))
    assert outcome.state == "done", outcome.message
    assert toy.calls == [
        *(f"rule {path}" for path in LAYERS),
        "on_evaluation 0",
        "prepare 6",
        "on_evaluation 0",
        "metrics", "row of epoch 0",
        "on_epoch_start 0", *steps(range(6)),
        "on_evaluation 1", "metrics", "row of epoch 1",
        "on_epoch_start 1", *steps(range(6, 12)),
        "on_evaluation 2", "metrics", "row of epoch 2",
        "on_evaluation 2",  # before the last measurement
    ]  # fmt: skip


def test_a_run_measures_its_best_epoch_under_the_masks_of_that_epoch(toy: type[Toy], tmp_path: Path) -> None:
    result = execute(toy_config(tmp_path), QUIET).result
    assert result is not None
    best = result["best"]["epoch"]
    assert toy.calls[-2:] == ["on_evaluation 3", f"on_evaluation {best}"] or best == 3


# What is saved


@pytest.fixture
def undisturbed(toy: type[Toy], tmp_path: Path) -> Path:
    outcome = execute(toy_config(tmp_path / "undisturbed"), QUIET)
    assert outcome.state == "done", outcome.message
    return outcome.folder


@pytest.mark.parametrize("counts", [[3], [5], [5, 5], [2, 1, 4, 7]], ids=str)
def test_an_interrupted_run_has_the_same_bits(counts: list[int], undisturbed: Path, tmp_path: Path) -> None:
    """In mid-epoch, at its end, and several times: with the counter and the weights that were drawn again."""
    config = toy_config(tmp_path / "broken")
    for count in counts:
        interrupt(config, count)
    outcome = execute(config, QUIET)
    assert outcome.state == "done", outcome.message
    assert_same_run(outcome.folder, undisturbed)
    redrawn = [row["redrawn"] for row in rows_without_times(outcome.folder)]
    assert redrawn[0] == 0
    assert redrawn == sorted(set(redrawn))


def test_a_method_that_saves_no_state_does_not_have_them(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the counter starts at 0 again."""
    monkeypatch.setattr(Toy, "state_dict", lambda self: {"redrawn": 0})
    config = toy_config(tmp_path / "broken")
    interrupt(config, 3)
    rows = rows_without_times(execute(config, QUIET).folder)
    whole = rows_without_times(undisturbed)
    assert [row["redrawn"] for row in rows[1:]] != [row["redrawn"] for row in whole[1:]]
    assert [row["train/loss"] for row in rows[1:]] == [row["train/loss"] for row in whole[1:]]


def test_preparing_is_done_once_and_a_resumed_run_goes_to_its_place(toy: type[Toy], tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    interrupt(config, 7)  # in the second epoch
    first = toy.calls.copy()
    assert [call for call in first if call.startswith("prepare")] == ["prepare 5"]
    assert first[-1] == "state_dict"
    assert first.index("prepare 5") < first.index("metrics") < first.index("on_epoch_start 0")
    toy.calls.clear()
    assert execute(config, QUIET).state == "done"
    assert not any(call.startswith("prepare") for call in toy.calls)
    begin = [*(f"rule {path}" for path in LAYERS), "on_evaluation 0", "load_state_dict", "on_epoch_start 1"]
    assert toy.calls[: len(begin) + 1] == [*begin, "on_step_start 7"]


def test_the_first_mask_that_is_measured_is_the_prepared_one(
    toy: type[Toy], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = files.read_result(undisturbed)
    assert result is not None
    images, labels = hidden_subnet.test_images(undisturbed)
    loss = F.cross_entropy(hidden_subnet.load(undisturbed, "first")(images), labels).item()
    assert result["untrained"]["first_mask"]["loss"] == pytest.approx(loss, rel=1e-6)
    monkeypatch.setattr(toy, "prepare", Method.prepare)
    other = execute(toy_config(tmp_path / "unprepared", epochs=1), QUIET).result
    assert other is not None
    assert other["untrained"]["unpruned"] == result["untrained"]["unpruned"]
    assert other["untrained"]["first_mask"] != result["untrained"]["first_mask"]


@pytest.mark.parametrize("which", ["first", "best", "last"])
def test_changed_weights_are_in_every_checkpoint_and_load_gives_them(undisturbed: Path, which: Any) -> None:
    kinds = {f"{path}.{what}" for path in LAYERS for what in ("scores", "weight")}
    assert trained(undisturbed, which).keys() == kinds
    result = files.read_result(undisturbed)
    assert result is not None
    recorded = result["untrained"]["first_mask"] if which == "first" else result[which]["test"]
    images, labels = hidden_subnet.test_images(undisturbed)
    logits = hidden_subnet.load(undisturbed, which)(images)
    assert (logits.argmax(dim=1) == labels).double().mean().item() == recorded["top1"]
    assert F.cross_entropy(logits, labels).item() == pytest.approx(recorded["loss"], rel=1e-6)


def test_weights_were_drawn_again(undisturbed: Path) -> None:
    """The control of the tests above: without them the checkpoints would hold the weights of the seed."""
    first, last = (trained(undisturbed, which) for which in ("first", "last"))
    for path in LAYERS:
        changed = first[f"{path}.weight"] != last[f"{path}.weight"]
        assert 0 < int(changed.count_nonzero()) < changed.numel()


def test_the_resume_checkpoint_holds_the_state_of_the_method(toy: type[Toy], tmp_path: Path) -> None:
    folder = interrupt(toy_config(tmp_path), 3)
    saved = checkpoints.load(folder / "checkpoints" / files.RESUME)["method"]
    assert saved.keys() == {"redrawn"}
    # A tenth of the half of 6,088 weights that is pruned, three times.
    assert saved["redrawn"] == pytest.approx(3 * 304, abs=5 * (3 * 3044 * 0.1 * 0.9) ** 0.5)


# Scores that only `prepare` sets


class Snip(Method):
    """Trains the weights that have the largest |weight * gradient| before the first step (Lee et al. 2019)."""

    settings = ToySettings
    trains = "weights"
    follows_ramp = False
    changes_weights = True  # the scores follow from no seed, and no gradient moves them: checkpoints must hold them

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        return MaskingRule(selection)

    def prepare(self, batches: Iterator[Batch]) -> None:
        images, labels = next(batches)
        weights = [layer.weight for _, layer in self.layers]
        gradients = torch.autograd.grad(F.cross_entropy(self.network(images), labels), weights)
        for (_, layer), gradient in zip(self.layers, gradients, strict=True):
            layer.scores.detach().copy_(layer.weight.detach() * gradient)


class MaskingRule:
    """weight * mask."""

    def __init__(self, selection: LayerSelection) -> None:
        self.selection = selection

    def mask(self, scores: Tensor) -> Tensor:
        return self.selection.mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return weight * self.mask(scores.detach())


def test_a_mask_that_only_preparing_finds_survives_an_interruption_and_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "toy", Snip)
    whole = execute(toy_config(tmp_path / "whole"), QUIET)
    assert whole.result is not None, whole.message
    config = toy_config(tmp_path / "broken")
    interrupt(config, 7)
    assert_same_run(execute(config, QUIET).folder, whole.folder)
    images, labels = hidden_subnet.test_images(whole.folder)
    network = hidden_subnet.load(whole.folder)
    assert (network(images).argmax(dim=1) == labels).double().mean().item() == whole.result["last"]["test"]["top1"]
    assert sum(int(value.count_nonzero()) for value in network.parameters()) == whole.result["kept"]
    assert all(row.get("flip_rate", 0) == 0 for row in rows_without_times(whole.folder))


class PrunedAtOnce(Method):
    """Trains nothing: keeps the weights of largest magnitude under a mask that only `prepare` sets."""

    settings = ToySettings
    trains = "nothing"
    follows_ramp = False
    changes_weights = True

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        return MaskingRule(selection)

    def prepare(self, batches: Iterator[Batch]) -> None:
        images, _ = next(batches)
        for _, layer in self.layers:
            layer.scores.detach().copy_(layer.weight.detach() * (1 + images.mean()) + layer.scores.detach())


def test_a_mask_that_only_preparing_finds_is_loaded_where_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "toy", PrunedAtOnce)
    done = execute(toy_config(tmp_path), QUIET)
    assert done.result is not None, done.message
    images, labels = hidden_subnet.test_images(done.folder)
    logits = hidden_subnet.load(done.folder)(images)
    assert F.cross_entropy(logits, labels).item() == pytest.approx(done.result["last"]["test"]["loss"], rel=1e-5)


# Mistakes in the class of a method


def class_with(**attributes: Any) -> type[Method]:
    """Return a method's class with these attributes, None: without."""
    given = {"settings": ToySettings, "trains": "scores", "rule": Plain.rule, **attributes}
    return type("Mine", (Method,), {name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"settings": None}, "settings must be a dataclass of its own"),
        ({"trains": None}, "trains=None: must be scores, weights, both or nothing"),
        ({"trains": "score"}, "trains='score': must be scores, weights, both or nothing"),
        ({"changes_weights": "yes"}, "changes_weights='yes': must be True or False"),
        ({"score_stream": 3}, "score_stream=3: must be the name of a random stream, or None"),
        ({"rule": None}, "rule must be defined"),
        ({"masks": False, "trains": "weights"}, "has_prune_rate must be False, since nothing is removed where masks"),
        ({"masks": False, "has_prune_rate": False}, "trains='scores': there are no scores where masks=False"),
        ({"only_last_layer": True}, "only_last_layer=True: needs masks=False"),
        ({"change_weights": True}, "change_weights is not a hook or trait of Method; did you mean changes_weights?"),
        (
            {"on_backward_end": Method.on_step_end},
            "on_backward_end is not a hook of Method, so nothing calls it; choose on_epoch_start, on_step_start, "
            "on_step_end, on_evaluation",
        ),
        ({"on_stepend": Method.on_step_end}, "on_stepend is not a hook or trait of Method; did you mean on_step_end?"),
    ],
)
def test_a_mistake_in_the_class_is_refused_when_it_is_defined(attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="Mine: ") as caught:
        class_with(**attributes)
    assert words in str(caught.value)


def test_a_right_class_is_not_refused() -> None:
    without = {"masks": False, "has_prune_rate": False, "trains": "weights", "rule": None}
    assert class_with(**without, penalty_factor=1.0, _private=None).masks is False


def test_changed_weights_without_the_trait_end_the_run(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "changes_weights", False)
    outcome = execute(toy_config(tmp_path), QUIET)
    assert outcome.state == "failed"
    assert "method=toy changes weights: its class needs the trait changes_weights = True" in outcome.message


# The base class by itself


class Plain(Method):
    settings = ToySettings
    trains = "scores"

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        return EdgePopupRule(selection)


def plain(kind: type[Method] = Plain, *, pruning: Pruning | None = None, prune_rate: float = 0.5) -> Method:
    """The method on one layer of 2x2 weights, with scores that rank them 1, 2, 3, 4."""
    layer = nn.Linear(2, 2, bias=False)
    mask_layers(layer)
    assert isinstance(layer, MaskedLinear)
    layer.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
    layer.scores.detach().copy_(torch.tensor([[0.1, -0.2], [0.3, -0.4]]))
    config = Config(pruning=pruning or Pruning(name="layerwise"), method=ToySettings(), prune_rate=prune_rate)
    method = kind(layer, config)
    method.on_evaluation(0)
    return method


def effective(method: Method) -> list[list[float]]:
    [(_, layer)] = method.layers
    weight: list[list[float]] = layer.effective_weight().tolist()
    return weight


def test_the_base_class_keeps_the_allocation_at_the_rate_of_the_epoch() -> None:
    method = plain(pruning=Pruning(name="layerwise", start_rate=0.0, ramp_epochs=2), prune_rate=0.75)
    kept = [[[1, -2], [3, -4]], [[0, 0], [3, -4]], [[0, 0], [0, -4]]]  # rates 0, 0.75 - 0.75 / 8 = 0.656, 0.75
    for epoch, weight in enumerate(kept):
        method.on_epoch_start(epoch)
        method.on_step_start(10 * epoch)
        assert effective(method) == weight
        method.on_epoch_start(epoch)  # as a resumed run does
        assert effective(method) == weight
    method.on_epoch_start(0)
    # After three epochs the masks are those of the third, and before the first those with which it begins.
    for epochs_done, weight in [(3, kept[2]), (2, kept[1]), (1, kept[0]), (0, kept[0])]:
        method.on_evaluation(epochs_done)
        assert effective(method) == weight
    assert method.first_rated_epoch == 3


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_masks_follow_changed_scores(pruning: str) -> None:
    method = plain(pruning=Pruning(name=pruning))
    assert effective(method) == [[0, 0], [3, -4]]
    [(_, layer)] = method.layers
    layer.scores.detach().copy_(torch.tensor([[0.9, -0.2], [0.3, -0.4]]))
    method.on_step_start(1)
    assert effective(method) == [[1, 0], [0, -4]]


def test_the_base_class_adds_nothing() -> None:
    method = plain()
    before = values(method.network)
    method.prepare(iter([]))
    method.on_step_end(0)
    assert method.penalty() is None
    assert method.metrics() == method.state_dict() == {}
    method.load_state_dict({})
    assert all(torch.equal(value, before[name]) for name, value in values(method.network).items())
    assert isinstance(plain(Method).layers[0][1].rule, KeepAll)


class WithoutRate(Plain):
    has_prune_rate = False


class WithoutRamp(Plain):
    follows_ramp = False


class DenseFirst(Plain):
    @classmethod
    def dense_epochs(cls, settings: Any) -> int:
        return 4


@pytest.mark.parametrize(
    ("kind", "first_rated_epoch", "first_weight"),
    [
        (Plain, 3, [[1, -2], [3, -4]]),
        (WithoutRate, 1, [[1, -2], [3, -4]]),  # it has no allocation, and its selections keep all
        (WithoutRamp, 1, [[0, 0], [0, -4]]),
        (DenseFirst, 7, [[1, -2], [3, -4]]),
    ],
)
def test_traits_say_what_a_ramp_means(
    kind: type[Method], first_rated_epoch: int, first_weight: list[list[float]]
) -> None:
    method = plain(kind, pruning=Pruning(name="layerwise", ramp_epochs=2), prune_rate=0.75)
    assert (method.allocation is None) == (kind is WithoutRate)
    assert method.first_rated_epoch == first_rated_epoch
    assert effective(method) == first_weight


def test_a_ramp_begins_after_the_dense_epochs() -> None:
    method = plain(DenseFirst, pruning=Pruning(name="layerwise", ramp_epochs=2), prune_rate=0.75)
    kept = []
    for epoch in range(8):
        method.on_epoch_start(epoch)
        [(_, layer)] = method.layers
        kept.append(int(layer.rule.mask(layer.scores.detach()).count_nonzero()))
    assert kept == [4, 4, 4, 4, 4, 2, 1, 1]
