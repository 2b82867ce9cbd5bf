"""One more worker for a sweep, in this shell."""

from pathlib import Path

from hidden_subnet.check import ConfigError
from hidden_subnet.commands.names import find_sweep


def worker(out: Path, name: str, *, workers: int | None, jobs_per_gpu: int | None, requeues: int, tasks: int) -> int:
    """The exit code, as `serve` tells it; what can be wrong is found before torch is loaded."""
    for option, value, least in (
        ("--workers", workers, 1),
        ("--jobs-per-gpu", jobs_per_gpu, 1),
        ("--requeues", requeues, 0),
        ("--tasks", tasks, 1),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{option} {value}: must be at least {least}")
    folder = find_sweep(out, name)
    from hidden_subnet.sweep.serve import serve

    return serve(folder, workers=workers, jobs_per_gpu=jobs_per_gpu, requeues=requeues, tasks=tasks)
