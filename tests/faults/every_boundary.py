"""python every_boundary.py <folder> <stride>: SIGKILL at every boundary of what a run does to its files.

A boundary lies before each thing that changes a file or a name under the folder, and before each fsync, there once
with the last bytes torn off. Prints one JSON object: for each scene the number of kills and what went wrong.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 (once, and not in each child)

from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Checkpoint, Claim, Config, Data, Init, Model, Pruning, Tracker, Train
from hidden_subnet.store import checkpoints, claims, files
from hidden_subnet.store.liveness import LivenessProbe, settle
from hidden_subnet.sweep.execute import RunObserver, execute

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/, for helpers
QUIET = RunObserver(on_row=lambda row: None, on_step=lambda epoch, batch, batches: None, say=lambda text: None)
CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def config(out: Path, force: bool = False) -> Config:
    return Config(
        model=Model(name="conv2", width=0.125),
        init=Init(name="signed_constant"),
        data=Data(name="synthetic", crop=1, flip=True),
        pruning=Pruning(name="layerwise"),
        method=METHODS["edge_popup"].settings(),
        train=Train(epochs=2, batch_size=160, lr=0.1, threads=1),
        checkpoint=Checkpoint(minutes=0),
        # Copies of a run have the same dead holder, whose mark in memory goes with the first copy that is taken over;
        # after that only its silence tells that it is dead.
        claim=Claim(silent_seconds=1),
        tracker=Tracker(),
        out=str(out),
        force=force,
    )


def in_child(do: Callable[[], Any]) -> int:
    """The exit code of a child that does it (minus the signal that killed it); an exception's is 1."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            do()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def watched(out: Path, kill_at: int, tear: bool, force: bool, count: Path | None = None) -> None:
    """Execute the run; die at the boundary `kill_at`, or write to `count` how many there were."""
    passed, fsync = 0, os.fsync

    def boundary(descriptor: int | None = None) -> None:
        nonlocal passed
        passed += 1
        if passed == kill_at:
            if descriptor is not None and tear and (size := os.fstat(descriptor).st_size) > 9:
                os.truncate(f"/proc/self/fd/{descriptor}", size - 9)
            os.kill(os.getpid(), signal.SIGKILL)

    def at(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            ours = isinstance(path, str) and (not os.path.isabs(path) or path.startswith(str(out)))
            if ours and flags & WRITES:  # a name alone is in a folder of the run, which is open
                boundary()
        elif event in CHANGES:
            path = arguments[0]
            if isinstance(path, int):
                return
            if not os.path.isabs(path) or path.startswith(str(out)):
                boundary()

    def counted_fsync(descriptor: int) -> None:
        is_file = not os.path.isdir(f"/proc/self/fd/{descriptor}")
        boundary(descriptor if is_file else None)
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(at)
    outcome = execute(config(out, force), QUIET)
    assert outcome.state == "done", outcome
    if count is not None:
        count.write_text(str(passed))


def check_between(out: Path) -> None:
    """After a kill: the old state or the new one, each whole."""
    [folder] = [path for path in out.iterdir() if path.is_dir()] or [out]
    now = settle(lambda probe: claims.run_status(folder, probe), LivenessProbe(out))
    assert now.state in ("queued", "lost", "done"), now
    if now.state == "done":
        assert files.read_result(folder) is not None
    files.read_rows(files.working(folder))
    state, complaints = checkpoints.load_newest(files.working(folder) / "checkpoints" / files.RESUME)
    assert complaints == [], complaints
    if state is not None:
        assert files.count_rows(files.working(folder)) > state["epoch"], "a row is missing"


def finish(out: Path, whole: Path, force: bool) -> None:
    from helpers.real_commands import assert_settled, difference

    outcome = execute(config(out, force), QUIET)
    assert outcome.state in ("done", "skipped"), outcome
    assert difference(outcome.folder, whole) == ""
    assert_settled(outcome.folder)


def scene(base: Path, prepared: Path | None, whole: Path, stride: int, force: bool) -> dict[str, Any]:
    """Kills at every `stride`-th boundary of an execution that finds what `prepared` holds."""

    def fresh(name: str) -> Path:
        out = base / name
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(prepared, out) if prepared else out.mkdir()
        return out

    count = base / "count"
    assert in_child(lambda: watched(fresh("counted"), 0, False, force, count)) == 0
    boundaries, wrong, kills = int(count.read_text()), [], 0
    for kill_at in range(1, boundaries + 1, stride):
        for tear in (False, True):
            out = fresh("killed")
            if in_child(lambda out=out, k=kill_at, t=tear: watched(out, k, t, force)) != -signal.SIGKILL:
                wrong.append(f"{kill_at}: not killed")
                continue
            kills += 1
            if in_child(lambda out=out: check_between(out)):
                wrong.append(f"{kill_at}{' torn' * tear}: between")
            if in_child(lambda out=out: finish(out, whole, force)):
                wrong.append(f"{kill_at}{' torn' * tear}: after")
    return {"boundaries": boundaries, "kills": kills, "wrong": wrong}


def main() -> None:
    base, stride = Path(sys.argv[1]), int(sys.argv[2])
    base.mkdir(parents=True, exist_ok=True)
    undisturbed = base / "undisturbed"
    undisturbed.mkdir()
    assert in_child(lambda: execute(config(undisturbed), QUIET)) == 0
    [whole] = (path for path in undisturbed.iterdir() if path.is_dir())
    # Its process died in the second epoch, and another may take the run over.
    dead = base / "dead"
    dead.mkdir()
    count = base / "count"
    assert in_child(lambda: watched(base / "all", 0, False, False, count)) == 0
    assert in_child(lambda: watched(dead, int(count.read_text()) * 2 // 3, False, False)) == -signal.SIGKILL
    print(
        json.dumps(
            {
                "new": scene(base, None, whole, stride, False),
                "taken over": scene(base, dead, whole, stride, False),
                "forced": scene(base, undisturbed, whole, stride, True),
            }
        )
    )


if __name__ == "__main__":
    main()
