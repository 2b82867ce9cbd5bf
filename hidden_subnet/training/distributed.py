"""One run on several devices (train.devices): one process (rank) for each device, all of which take the same steps.

Every rank builds the same network from the same seeds and computes the same masks. It takes its shard of each batch,
DistributedDataParallel makes the gradients those of the whole batch, and sums of metrics are added up. Rank 0 is the
run's own process: only it claims, records, saves and obeys signals, and at each step it broadcasts what it decided.
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
from hidden_subnet.store.child_processes import our_modules
from hidden_subnet.store.printable import print_printable
from hidden_subnet.training.rendezvous import Rendezvous

TIMEOUT = timedelta(minutes=10)
"""Time limit of a rank that waits for another, which may be reading images or saving."""
PR_SET_PDEATHSIG = 1
FAILED = "failed"
"""The store's key for the first rank that failed: its number, a line break, its traceback."""
EXPLAINED = 1
"""Exit code of a rank whose failure is explained: it left its traceback, or another did before it."""


@dataclass(frozen=True)
class ProcessGroup:
    """The ranks of a run as one of them sees them; SINGLE_PROCESS where there is only one."""

    rank: int = 0
    size: int = 1
    decisions: Any = None
    """torch's process group on the CPU: decisions of the host do not wait for a GPU."""

    @property
    def is_main(self) -> bool:
        """True on rank 0."""
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        """(rank, size): the part of each batch that this rank takes (data/interfaces.py)."""
        return self.rank, self.size

    def broadcast_decision(self, decision: int) -> int:
        """Return rank 0's decision, on every rank."""
        if self.size == 1:
            return decision
        from torch import distributed

        shared = torch.tensor([decision])
        distributed.broadcast(shared, 0, group=self.decisions)
        return int(shared)

    def all_reduce_sum(self, sums: Tensor) -> Tensor:
        """Return the sum over all ranks; `sums` is not changed."""
        if self.size == 1:
            return sums
        from torch import distributed

        added = sums.clone()
        distributed.all_reduce(added)
        return added

    def all_gather(self, mine: Tensor) -> Tensor:
        """Return the tensors of all ranks, on the CPU, joined on their first axis, whose length may differ."""
        if self.size == 1:
            return mine
        from torch import distributed

        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, mine, group=self.decisions)
        return torch.cat(found)

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """Return `model` wrapped so that backward averages the gradients over the ranks.

        For the gradients of the whole batch, the loss of a rank must be the sum of its shard's losses, divided by the
        images of the whole batch and multiplied by the number of ranks.
        """
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        with warnings.catch_warnings():  # older versions of torch do not know the name that replaces the deprecated one
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            return DistributedDataParallel(
                _WithUnusedParameter(model), broadcast_buffers=False, find_unused_parameters=True
            )

    def sync_batch_norm_buffers(self, model: nn.Module) -> None:
        """Give every rank the running statistics of rank 0, before an evaluation or a checkpoint."""
        if self.size == 1:
            return
        from torch import distributed

        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                for value in layer.buffers():
                    distributed.broadcast(value, 0)


class _WithUnusedParameter(nn.Module):
    """The network, and a parameter that no step uses.

    With find_unused_parameters, DDP gives a parameter no gradient where no rank has one (warmup_then_prune), and keeps
    its buckets. Without, it would rebuild the buckets after the first step, also of a resumed run, and so change the
    order in which the gradients of three or more ranks are added. The unused parameter is there because DDP warns
    where it finds none.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.unused = network, nn.Parameter(torch.zeros((), device=next(network.parameters()).device))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes)."""
        logits: Tensor = self.network(images)
        return logits


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_tasks(met: Rendezvous, device: str) -> Iterator[ProcessGroup]:
    """Give the group of ranks that were started together; one that dies ends the others, so that none waits for it."""
    try:
        with _joined(met.store, met.rank, met.size, device, met.local_rank) as group:
            yield group
    except RuntimeError as error:
        if met.rank == 0:  # the run fails with the error of rank 0
            _raise_of_another(met.store, met.size)
        if "Connection closed by peer" in str(error):  # gloo's words are a paragraph
            raise RuntimeError(f"another of the {met.size} ranks of this run died, or its node did") from error
        raise


@contextmanager
def start_ranks(
    size: int, device: str, follow: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[ProcessGroup]:
    """Give this process as rank 0 of `size` on this machine; each other rank executes `follow(*arguments, group)`.

    `follow` and `arguments` must pickle. Raises RuntimeError, which names it, where another rank dies.
    """
    if size == 1:
        yield SINGLE_PROCESS
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    start = (os.getpid(), size, store.port, device, torch.get_num_threads(), follow, arguments)
    others = [context.Process(target=_other, args=(rank, *start), name=f"rank {rank}") for rank in range(1, size)]
    # They start with the signals blocked, and stay so: the terminal and Slurm signal every process of a run.
    with our_modules():
        resource_tracker.ensure_running()  # before the block, since starting it unblocks INT and TERM
        with signals_held():
            for process in others:
                process.start()
    try:
        if sys.platform == "linux":  # the host's name may not resolve
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        with _joined(store, 0, size, device, 0) as group:
            yield group
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
    """Return the rank that ended without an explanation, and how; None where all ended well, or none did in time."""
    until = time.monotonic() + 5  # a broken connection is noticed before the process has ended
    while True:
        for process in others:
            code = process.exitcode
            if code not in (None, 0, EXPLAINED):
                return process.name, signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if all(process.exitcode is not None for process in others) or time.monotonic() > until:
            return None
        connection.wait([process.sentinel for process in others if process.exitcode is None], 0.5)


@contextmanager
def _storing_traceback(store: Any, rank: int) -> Iterator[None]:
    """Store the traceback of the first rank that fails, before the others see its connections end and fail too."""
    try:
        yield
    except Exception:
        with suppress(RuntimeError):  # rank 0, which holds the store, may have ended
            store.compare_set(FAILED, "", f"{rank}\n{traceback.format_exc()}")
        raise


def _raise_of_another(store: Any, size: int) -> None:
    """Raise RuntimeError with the error of the first rank that failed, unless that was rank 0."""
    if not store.check([FAILED]):
        return
    rank, _, text = store.get(FAILED).decode().partition("\n")
    if rank != "0":
        raise RuntimeError(f"rank {rank} of {size}: {text.splitlines()[-1]}") from RankError(text)


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
    """The main function of the process of another rank."""
    print_printable()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before prctl
            os._exit(1)
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    torch.set_num_threads(threads)
    store = TCPStore("127.0.0.1", port, size, is_master=False)
    try:
        with _storing_traceback(store, rank), _joined(store, rank, size, device, rank) as group:
            follow(*arguments, group)
    except Exception:
        sys.exit(EXPLAINED)


@contextmanager
def _joined(store: Any, rank: int, size: int, device: str, local_rank: int) -> Iterator[ProcessGroup]:
    from torch import distributed

    if device == "cuda":
        torch.cuda.set_device(local_rank % torch.cuda.device_count())  # a task may see its own GPU only
    backend = "nccl" if device == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except Exception:
        # torch names groups by a counter that only destroy_process_group sets back. After a failure here, the next run
        # in this process would wait under a name that no other rank uses.
        if distributed.is_initialized():
            distributed.destroy_process_group()
        distributed.distributed_c10d._world.group_count = 0
        raise
    try:
        decisions = distributed.new_group(backend="gloo", timeout=TIMEOUT) if device == "cuda" else None
        with _storing_traceback(store, rank):
            yield ProcessGroup(rank, size, decisions)
    finally:
        distributed.destroy_process_group()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
