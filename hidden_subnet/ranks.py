"""One run on several devices (train.devices): a process each, which all take the same steps.

Every rank builds the same network from the same seeds and works out the same masks. It takes its part of each batch,
DistributedDataParallel makes the gradients those of the whole batch, and sums of metrics are added up. Rank 0 is the
run's own process: it alone claims, records, saves and heeds signals, and tells the others at each step what it decided.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hidden_subnet.signals import signals_held
from hidden_subnet.tasks import Meeting

TIMEOUT = timedelta(minutes=10)
"""Of a rank that waits for another, which may be reading images or saving."""
PR_SET_PDEATHSIG = 1
FAILED = "failed"
"""Where the store has the number of the first rank that failed, a line, and its traceback."""
TOLD = 1
"""Exit code of a rank that has left its traceback, or came after another that had."""


@dataclass(frozen=True)
class Team:
    """What a process knows of the run's ranks; ALONE where it is the only one."""

    rank: int = 0
    size: int = 1
    decisions: Any = None
    """A process group of the CPU: what is decided on the host does not wait for a GPU."""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        return self.rank, self.size

    def agree(self, decision: int) -> int:
        """Rank 0's, on every rank."""
        if self.size == 1:
            return decision
        from torch import distributed

        said = torch.tensor([decision])
        distributed.broadcast(said, 0, group=self.decisions)
        return int(said)

    def total(self, sums: Tensor) -> Tensor:
        """The sum over all ranks; `sums` stays what it is."""
        if self.size == 1:
            return sums
        from torch import distributed

        added = sums.clone()
        distributed.all_reduce(added)
        return added

    def trained(self, model: nn.Module) -> nn.Module:
        """What to call in a training step in place of `model`, so that backward leaves the same gradients on all ranks.

        They are means over the ranks: a rank's loss has to be its part of the whole batch's, times their number.
        """
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        with warnings.catch_warnings():  # the name that takes its place is not in the older versions of torch
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            return DistributedDataParallel(_Beside(model), broadcast_buffers=False, find_unused_parameters=True)

    def same_norms(self, model: nn.Module) -> None:
        """Give every rank the running statistics of rank 0, before they are measured with or saved."""
        if self.size == 1:
            return
        from torch import distributed

        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                for value in layer.buffers():
                    distributed.broadcast(value, 0)


class _Beside(nn.Module):
    """The network, and a parameter that no step uses.

    With find_unused_parameters DDP leaves a parameter without a gradient where no rank has one (warmup_then_prune), and
    keeps its buckets: otherwise it orders them anew after the first step, of a run that goes on too, and with them the
    sums of three ranks or more. It warns when it then finds none unused.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.unused = network, nn.Parameter(torch.zeros((), device=next(network.parameters()).device))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


ALONE = Team()


@contextmanager
def team_of_tasks(met: Meeting, device: str) -> Iterator[Team]:
    """The team of the tasks that have met; a rank that dies ends the others, which then wait for nobody."""
    try:
        with _joined(met.store, met.rank, met.size, device, met.local_rank) as team:
            yield team
    except RuntimeError:
        if met.rank == 0:  # whose error is the run's
            _raise_of_another(met.store, met.size)
        raise


@contextmanager
def team_of(size: int, device: str, follow: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[Team]:
    """This process as rank 0 of `size` on this machine; each other executes `follow(*arguments, team)`.

    `follow` and `arguments` must pickle. A rank that dies ends the run: RuntimeError, which names it.
    """
    if size == 1:
        yield ALONE
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    start = (os.getpid(), size, store.port, device, torch.get_num_threads(), follow, arguments)
    others = [context.Process(target=_other, args=(rank, *start), name=f"rank {rank}") for rank in range(1, size)]
    # They begin with the signals blocked, and stay so: the terminal and Slurm signal every process of a run.
    resource_tracker.ensure_running()  # here, since in starting it unblocks INT and TERM
    with signals_held():
        for process in others:
            process.start()
    try:
        if sys.platform == "linux":  # the host's name need not lead anywhere
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        with _joined(store, 0, size, device, 0) as team:
            yield team
            for process in others:
                process.join(TIMEOUT.total_seconds())
    except RuntimeError as error:
        if dead := _dead(others):
            name, how = dead
            raise RuntimeError(
                f"{name} of {size} died of {how}; the other ranks have ended with it ({_first_line(error)})"
            ) from error
        _raise_of_another(store, size)
        raise
    finally:
        for process in others:
            process.kill()
            process.join()


class RankError(Exception):
    """The traceback of another rank."""


def _dead(others: Sequence[BaseProcess]) -> tuple[str, str] | None:
    """The rank that ended without a word, and how; None where all ended, or none did in time."""
    until = time.monotonic() + 5  # a broken connection is seen before the process is gone
    while True:
        for process in others:
            code = process.exitcode
            if code not in (None, 0, TOLD):
                return process.name, signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if all(process.exitcode is not None for process in others) or time.monotonic() > until:
            return None
        connection.wait([process.sentinel for process in others if process.exitcode is None], 0.5)


@contextmanager
def _blaming(store: Any, rank: int) -> Iterator[None]:
    """The first rank that fails leaves its traceback, before the others see its connections end and fail of that."""
    try:
        yield
    except Exception:
        with suppress(RuntimeError):  # rank 0, which holds the store, is gone
            store.compare_set(FAILED, "", f"{rank}\n{traceback.format_exc()}")
        raise


def _raise_of_another(store: Any, size: int) -> None:
    """RuntimeError with what the first rank that failed said, unless that was rank 0."""
    if not store.check([FAILED]):
        return
    rank, _, told = store.get(FAILED).decode().partition("\n")
    if rank != "0":
        raise RuntimeError(f"rank {rank} of {size}: {told.splitlines()[-1]}") from RankError(told)


def _other(
    rank: int,
    parent: int,
    size: int,
    port: int,
    device: str,
    threads: int,
    follow: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """The whole life of a process of another rank."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            os._exit(1)
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    torch.set_num_threads(threads)
    store = TCPStore("127.0.0.1", port, size, is_master=False)
    try:
        with _blaming(store, rank), _joined(store, rank, size, device, rank) as team:
            follow(*arguments, team)
    except Exception:
        sys.exit(TOLD)


@contextmanager
def _joined(store: Any, rank: int, size: int, device: str, local_rank: int) -> Iterator[Team]:
    from torch import distributed

    if device == "cuda":
        torch.cuda.set_device(local_rank % torch.cuda.device_count())  # a task may see its own only
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        decisions = distributed.new_group(backend="gloo", timeout=TIMEOUT) if device == "cuda" else None
        with _blaming(store, rank):
            yield Team(rank, size, decisions)
    finally:
        distributed.destroy_process_group()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
