"""A training step with its numbers written out, and what an epoch of steps counts and calls."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Config, MethodSettings, Model, Pruning, Train, setting
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.base import Batch, Method
from hidden_subnet.models.networks import build
from hidden_subnet.training.trainer import Trainer


@dataclass(kw_only=True, slots=True)
class RecordingSettings(MethodSettings):
    name: str = setting("recording", id="always")


class Recording(Method):
    """Trains weights, and records which hook was called when."""

    settings = RecordingSettings
    trains, masks, has_prune_rate = "weights", False, False

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__(network, config or Config())
        self.calls: list[str] = []
        self.added: Tensor | None = None

    def on_epoch_start(self, epoch: int) -> None:
        self.calls.append(f"epoch {epoch}")

    def on_step_start(self, step: int) -> None:
        self.calls.append(f"start {step}")

    def penalty(self) -> Tensor | None:
        return None if self.added is None else self.added * self.network.get_parameter("1.weight").sum()

    def on_step_end(self, step: int) -> None:
        self.calls.append(f"end {step}")


def two_weights(values: tuple[float, float] = (0.0, 0.0)) -> nn.Sequential:
    """An image of one pixel x and two classes: the logits are (w0 x, w1 x)."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    network.get_parameter("1.weight").detach().copy_(torch.tensor(values).view(2, 1))
    return network


def plain(**train: float | str) -> Train:
    return Train(**{"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", **train})


def batch_of(*pixels: float, label: int = 0) -> Batch:
    return torch.tensor(pixels).view(-1, 1, 1, 1), torch.full((len(pixels),), label)


def trainer_of(values: tuple[float, float] = (0.0, 0.0), **train: float | str) -> tuple[Trainer, Recording]:
    network = two_weights(values)
    method = Recording(network)
    return Trainer(network, method, plain(**train), "cpu"), method


def edge_popup_config(**train: float | str) -> Config:
    pruning, method = Pruning(name="layerwise"), METHODS["edge_popup"].settings()
    return Config(model=Model(name="fc"), pruning=pruning, method=method, train=plain(**train))


def weights_of(trainer: Trainer) -> list[float]:
    values: list[float] = trainer.network.get_parameter("1.weight").flatten().tolist()
    return values


def test_step_written_out() -> None:
    """Softmax of (0, 0) is (1/2, 1/2), so that d loss / d logits = (-1/2, 1/2) for class 0; times x = 1, lr = 1/2."""
    trainer, _ = trainer_of()
    trainer.train_step(*batch_of(1.0))
    assert weights_of(trainer) == [0.25, -0.25]
    metrics = trainer.metrics.means()
    assert metrics.loss == pytest.approx(math.log(2), rel=1e-6)
    assert (metrics.top1, metrics.top5) == (1.0, 1.0)  # of equal logits the lower class is first


def test_loss_is_the_mean_over_the_batch() -> None:
    """Images 1 and 3 of class 0: the mean of (-1/2, 1/2) and (-3/2, 3/2), times lr = 1/2."""
    trainer, _ = trainer_of()
    trainer.train_step(*batch_of(1.0, 3.0))
    assert weights_of(trainer) == [0.5, -0.5]


def test_gradients_of_the_step_before_are_forgotten_and_momentum_is_not() -> None:
    trainer, _ = trainer_of(momentum=0.5)
    trainer.train_step(*batch_of(1.0))
    first = weights_of(trainer)
    trainer.train_step(*batch_of(0.0))  # a black image: no gradient, half of the velocity stays
    assert weights_of(trainer) == [first[0] * 1.5, first[1] * 1.5]


def test_label_smoothing_acts_in_training() -> None:
    """With e = 0.2 the target is (0.9, 0.1), so that d loss / d logits = (1/2 - 0.9, 1/2 - 0.1)."""
    trainer, _ = trainer_of(label_smoothing=0.2)
    trainer.train_step(*batch_of(1.0))
    assert weights_of(trainer) == pytest.approx([0.2, -0.2], rel=1e-6)


def test_a_long_gradient_is_shortened() -> None:
    """Image 2: the gradient is (-1, 1), of norm sqrt(2); with the limit 1 it is (-1, 1) / sqrt(2), times lr = 1/2."""
    trainer, _ = trainer_of(clip_norm=1.0)
    trainer.train_step(*batch_of(2.0))
    assert weights_of(trainer) == pytest.approx([0.5 / 2**0.5, -0.5 / 2**0.5], rel=1e-5)
    trainer, _ = trainer_of(clip_norm=1.0)
    trainer.train_step(*batch_of(0.5))
    assert weights_of(trainer) == [0.125, -0.125]


def test_the_norm_of_scores_is_limited() -> None:
    network = two_weights((2.0, -1.0))
    trainer = Trainer(network, apply_method(network, edge_popup_config(lr=1.0)), plain(lr=1.0, clip_norm=1e-5), "cpu")
    [(_, layer)] = masked_layers(network)
    before = layer.scores.detach().clone()
    trainer.train_step(*batch_of(1.0))
    assert (layer.scores.detach() - before).norm().item() == pytest.approx(1e-5, rel=1e-2)


@pytest.mark.parametrize("parts", [2, 3, 5, 6])
def test_parts_of_a_batch_are_a_step_of_the_whole(parts: int) -> None:
    """Five images, also in more parts than images: weights, loss and hits are those of the whole batch, to rounding."""
    pixels, classes = (1.0, -2.0, 0.5, 3.0, -1.0), torch.tensor([0, 1, 1, 0, 0])
    (whole, _), (split, method) = trainer_of((0.3, -0.2)), trainer_of((0.3, -0.2), accumulate=parts)
    for trainer in (whole, split):
        trainer.train_step(batch_of(*pixels)[0], classes)
    assert weights_of(split) == pytest.approx(weights_of(whole), rel=1e-6)
    assert split.metrics.means().loss == pytest.approx(whole.metrics.means().loss, rel=1e-6)
    assert split.metrics.means().top1 == whole.metrics.means().top1
    assert method.calls == ["start 0", "end 0"]  # the masks of a step are chosen once


def test_a_penalty_counts_once_for_all_parts() -> None:
    (whole, added), (split, too) = trainer_of(), trainer_of(accumulate=3)
    added.added = too.added = torch.tensor(0.25)
    for trainer in (whole, split):
        trainer.train_step(*batch_of(1.0, 2.0, 3.0, 4.0))
    assert weights_of(split) == pytest.approx(weights_of(whole), rel=1e-6)


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if kind.is_trained()])
def test_each_method_has_one_mask_for_the_parts_of_a_batch(method: str) -> None:
    """Each method's step of ten images, in parts and as a whole: the same weights and scores, to rounding."""
    torch.manual_seed(0)
    images, labels = torch.randn(10, 1, 28, 28), torch.arange(10)
    after = []
    for parts in (1, 3):
        config = edge_popup_config(lr=0.1, accumulate=parts, batch_size=10)
        config = replace(config, method=METHODS[method].settings())
        network = build("fc", 0.1, (1, 28, 28), 10)
        torch.manual_seed(1)
        for weight in network.parameters():
            nn.init.kaiming_normal_(weight)
        trainer = Trainer(network, apply_method(network, config), config.train, "cpu")
        before = [each.detach().clone() for each in network.parameters()]
        trainer.train_step(images, labels)
        assert any(not torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
        after.append(torch.cat([each.detach().flatten() for each in network.parameters()]))
    torch.testing.assert_close(after[0], after[1], rtol=1e-4, atol=1e-7)


def test_loss_factor_scales_the_gradient_and_not_what_is_reported() -> None:
    trainer, _ = trainer_of()
    trainer.loss_factor = 3.0
    trainer.train_step(*batch_of(1.0))
    assert weights_of(trainer) == [0.75, -0.75]
    assert trainer.metrics.means().loss == pytest.approx(math.log(2), rel=1e-6)


def test_penalty_is_added_after_the_loss_factor() -> None:
    """A penalty 1/4 (w0 + w1) adds 1/4 to each gradient, whatever the loss is scaled by: 3 (-1/2, 1/2) + 1/4."""
    trainer, method = trainer_of()
    trainer.loss_factor, method.added = 3.0, torch.tensor(0.25)
    trainer.train_step(*batch_of(1.0))
    assert weights_of(trainer) == [0.625, -0.875]
    assert trainer.metrics.means().loss == pytest.approx(math.log(2), rel=1e-6)
    assert trainer.objective(torch.tensor(2.0)).item() == pytest.approx(3 * 2.0 + 0.25 * (0.625 - 0.875))


def test_step_of_edge_popup_written_out() -> None:
    """Weights (2, -1), scores (1/2, -1/10), one of the two kept: only the scores move, also that of the removed weight.

    The masked weight is (2, 0), so that p = softmax(2, 0) and d loss / d logits = (p0 - 1, p1) = (-q, q) with
    q = 1 / (1 + e^2). A score's gradient is that times weight times sign(score): (-2 q, q).
    """
    network = two_weights((2.0, -1.0))
    config = edge_popup_config(lr=1.0)
    method = apply_method(network, config)
    [(_, layer)] = masked_layers(network)
    layer.scores.detach().copy_(torch.tensor([[0.5], [-0.1]]))
    trainer = Trainer(network, method, config.train, "cpu")
    trainer.train_step(*batch_of(1.0))
    q = 1 / (1 + math.exp(2))
    assert layer.scores.flatten().tolist() == pytest.approx([0.5 + 2 * q, -0.1 - q], rel=1e-6)
    assert layer.weight.flatten().tolist() == [2.0, -1.0]
    assert trainer.metrics.means().loss == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)


def test_epoch_counts_batches_and_steps_and_calls_the_hooks_in_order() -> None:
    trainer, method = trainer_of()
    seen: list[tuple[int, int]] = []
    trainer.network.eval()
    trainer.train_epoch([batch_of(1.0)] * 2, lambda: seen.append((trainer.state.batch, trainer.state.step)))
    assert trainer.network.training
    assert seen == [(1, 1), (2, 2)]
    trainer.state.epoch, trainer.state.batch = 1, 0
    trainer.train_epoch([batch_of(1.0)], lambda: seen.append((trainer.state.batch, trainer.state.step)))
    assert seen[2:] == [(1, 3)]
    assert method.calls == ["epoch 0", "start 0", "end 0", "start 1", "end 1", "epoch 1", "start 2", "end 2"]
    assert trainer.metrics.totals[3] == 3  # images: the sums are kept until they are replaced
    assert trainer.state.epoch == 1  # finished epochs are counted by whoever measures them


def test_learning_rate_is_that_of_the_epoch() -> None:
    """Two epochs of cosine: lr, then half of it, in every group of the optimizer."""
    trainer, _ = trainer_of(schedule="cosine", epochs=2, norm_decay=False)
    trainer.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    for epoch, expected in enumerate((0.5, 0.25)):
        trainer.state.epoch = epoch
        assert trainer.learning_rate == pytest.approx(expected)
        before = weights_of(trainer)
        trainer.train_epoch([batch_of(1.0)])
        assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([expected] * 2)
        p = 1 / (1 + math.exp(before[0] - before[1]))  # of the wrong class
        assert weights_of(trainer)[0] - before[0] == pytest.approx(expected * p, rel=1e-5)


def test_each_batch_has_its_loss_factor() -> None:
    trainer, _ = trainer_of()
    used: list[float | None] = []
    trainer.train_epoch([batch_of(1.0)] * 3, lambda: used.append(trainer.loss_factor), iter([1.0, 2.0, 0.5]))
    assert used == [1.0, 2.0, 0.5]
    trainer.train_epoch([batch_of(1.0)], lambda: used.append(trainer.loss_factor))
    assert used[3:] == [None]


class Stopped(Exception):
    pass


def test_stops_between_two_steps_and_resumes_to_the_same_weights() -> None:
    def stop() -> None:
        if trainer.state.batch == 2:
            raise Stopped

    batches = [batch_of(1.0), batch_of(-1.0, 2.0), batch_of(0.5, label=1), batch_of(3.0)]
    taken: list[int] = []

    def counted(start: int) -> Iterator[Batch]:
        for number, each in enumerate(batches[start:], start):
            taken.append(number)
            yield each

    whole, _ = trainer_of()
    whole.train_epoch(batches)
    trainer, method = trainer_of()
    with pytest.raises(Stopped):
        trainer.train_epoch(counted(0), stop)
    assert (trainer.state.batch, trainer.state.step) == (2, 2)
    assert taken == [0, 1]
    assert method.calls[-1] == "end 1"
    trainer.train_epoch(counted(trainer.state.batch))
    assert taken == [0, 1, 2, 3]
    assert (trainer.state.batch, trainer.state.step) == (4, 4)
    assert weights_of(trainer) == weights_of(whole)
    assert torch.equal(trainer.metrics.totals, whole.metrics.totals)


def test_step_never_reads_from_the_device() -> None:
    """On torch's meta device tensors have no values: whatever waits for one (item, nonzero, a branch) raises."""
    network = build("conv2", 0.25, (1, 8, 8), 10)
    config = edge_popup_config(lr=0.1, momentum=0.9, label_smoothing=0.1)
    method = apply_method(network, config)
    network.to("meta")
    trainer = Trainer(network, method, config.train, "meta")
    batch = torch.empty(4, 1, 8, 8, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    trainer.train_epoch([batch, batch])
    assert trainer.state.step == 2
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(1, device="meta").item()
