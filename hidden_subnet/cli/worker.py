"""`python -m hidden_subnet worker`: add a worker to a sweep, in this shell."""

from pathlib import Path

from hidden_subnet.errors import ConfigError
from hidden_subnet.store.find import find_sweep


def worker(out: Path, name: str, *, workers: int | None, jobs_per_gpu: int | None, requeues: int, tasks: int) -> int:
    """Work on the sweep `name` until all its runs are done. Returns the exit code.

    Raises ConfigError for a wrong number or an unknown sweep, before torch is imported.
    """
    for option, value, least in (
        ("--workers", workers, 1),
        ("--jobs-per-gpu", jobs_per_gpu, 1),
        ("--requeues", requeues, 0),
        ("--tasks", tasks, 1),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{option} {value}: must be at least {least}; as in: {option} {least}")
    folder = find_sweep(out, name)
    from hidden_subnet.sweep.serve import serve
    from hidden_subnet.trackers import open_trackers

    return serve(
        folder,
        workers=workers,
        jobs_per_gpu=jobs_per_gpu,
        requeues=requeues,
        tasks=tasks,
        open_trackers=open_trackers,
    )
