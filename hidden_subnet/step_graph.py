"""train.cuda_graph: a training step recorded once an epoch, and replayed as one launch for every further whole batch.

The kernels are the same, so the result is. What the host decides is recorded with its value: the learning rate, the
prune rate and the sums change between epochs only, and each epoch records its own. Two things stay with the host: a
replay does not count up the version of a tensor, so whoever remembers what the scores were (GlobalBudget) has to be
told to look again before an evaluation (Course.before_evaluation does); and a random state that is set in each step
would stay the recorded one (check.py refuses what does that).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hidden_subnet.check import ConfigError
from hidden_subnet.training import Step

Record = Callable[[Callable[[], None]], Callable[[], None]]
FIRST = 3
"""Steps that are taken as they are before one is recorded: they allocate what stays, and choose algorithms."""


def recorded(step: Step, size: int, record: Record | None = None) -> Step:
    """`step` for one epoch; batches that have another number of images than `size` are never replayed.

    `record` makes a replay of what it is given, without executing it; by default a CUDA graph.
    """
    record = record or cuda_graph
    taken = 0
    inputs: tuple[Tensor, Tensor] | None = None
    replay: Callable[[], None] | None = None

    def run(images: Tensor, labels: Tensor) -> None:
        nonlocal taken, inputs, replay
        if images.shape[0] != size:
            step(images, labels)
            return
        if taken < FIRST:
            taken += 1
            _beside(lambda: step(images, labels), images)
            return
        if inputs is None or replay is None:
            inputs = kept = images.clone(), labels.clone()
            replay = record(lambda: step(*kept))
        inputs[0].copy_(images)
        inputs[1].copy_(labels)
        replay()

    return run


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """The replay of `step`; its memory goes with it."""
    graph = torch.cuda.CUDAGraph()
    # Other threads (workers that pin images) may allocate meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


def _beside(step: Callable[[], None], images: Tensor) -> None:
    """On a stream of its own, as what comes before a recording has to be (torch's notes on CUDA graphs)."""
    if images.device.type != "cuda":
        step()
        return
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)


def refuse_graph(device: str) -> None:
    """ConfigError where there are no CUDA graphs."""
    if device != "cuda":
        raise ConfigError(f"train.cuda_graph=true: needs an NVIDIA GPU, and this run is on {device}; leave it away")
