"""Training of a network: a step, and an epoch of steps. The method decides what is trained and how masks change."""

from collections.abc import Callable, Iterable
from itertools import repeat

import torch.nn.functional as F
from torch import Tensor, nn

from hidden_subnet.config.settings import Train
from hidden_subnet.methods.base import Batch, Method
from hidden_subnet.training.acceleration import compiled, wrap_step
from hidden_subnet.training.distributed import SINGLE_PROCESS, ProcessGroup
from hidden_subnet.training.metrics import MetricSums
from hidden_subnet.training.optim import learning_rate, make_optimizer
from hidden_subnet.training.state import TrainingState


class Trainer:
    """Takes the training steps of a network that its method has prepared (methods/apply.py)."""

    def __init__(
        self, network: nn.Module, method: Method, train: Train, device: str, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.network, self.method, self.train = network, method, train
        self.device, self.group = device, group
        self.optimizer = make_optimizer(network, train)
        self.forward: Callable[[Tensor], Tensor] = (
            compiled(network, train.batch_size) if train.compile else group.wrap_ddp(network)
        )
        self.state = TrainingState()
        self.metrics = MetricSums(device)
        self.loss_factor: float | None = None
        """With several ranks, the factor with which the mean of their losses is the loss of the whole batch."""
        self.first_penalty: Tensor | None = None
        """The method's penalty in the run's first step, before its update, a scalar."""

    def train_epoch(
        self,
        batches: Iterable[Batch],
        after_step: Callable[[], None] = lambda: None,
        loss_factors: Iterable[float | None] = repeat(None),
    ) -> None:
        """Take a step for each remaining batch of the current epoch; `after_step` may raise to stop between two steps.

        `loss_factors`: one for each batch, only with several ranks.
        """
        self.method.on_epoch_start(self.state.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.network.train()
        step = wrap_step(self.train_step, self.train)
        for (images, labels), self.loss_factor in zip(batches, loss_factors, strict=False):
            step(images, labels)
            self.state.batch += 1
            self.state.step += 1
            after_step()

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """Take one training step on normalised images, float32 (B, C, H, W), and their labels, int64 (B,)."""
        self.method.on_step_start(self.state.step)
        self.optimizer.zero_grad()  # before the forward pass, which can then use the memory of the gradients
        parts = max(1, min(self.train.accumulate, len(labels)))
        taken: list[tuple[Tensor, Tensor, Tensor]] = []
        for part, its_labels in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            logits = self.forward(part)  # (B, classes)
            loss = F.cross_entropy(logits, its_labels, label_smoothing=self.train.label_smoothing)
            share = None if parts == 1 else len(its_labels) / len(labels)
            self.objective(loss, share).backward()  # type: ignore[no-untyped-call]
            taken.append((loss.detach(), logits.detach(), its_labels))
        if self.train.clip_norm is not None:
            trained = [each for group in self.optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.train.clip_norm)
        self.optimizer.step()
        self.method.on_step_end(self.state.step)
        for each in taken:
            self.metrics.add(*each)

    def objective(self, loss: Tensor, share: float | None = None) -> Tensor:
        """Return the scalar to minimise: the loss, times the rank's loss factor, plus the penalty of the method.

        share: of a part of a batch (train.accumulate), its fraction of the images; None: the whole batch.
        """
        if self.loss_factor is not None:
            loss = loss * self.loss_factor
        penalty = self.method.penalty()
        if penalty is not None and self.state.step == 0:
            self.first_penalty = penalty.detach()
        objective = loss if penalty is None else loss + penalty
        return objective if share is None else objective * share

    @property
    def learning_rate(self) -> float:
        """Learning rate of the current epoch."""
        return learning_rate(self.state.epoch, self.train)
