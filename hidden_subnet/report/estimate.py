"""The time of runs that nobody has done yet, for `plan=true`: the images of a run times the speed of a few steps.

Speeds are kept in ~/.cache/hidden_subnet/speed.json, by host, threads and what a step computes. Reading image files is
not part of them.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from hidden_subnet.config.convert import as_dict
from hidden_subnet.config.data_info import held_out, trained_on
from hidden_subnet.config.registries import info_of, method_traits
from hidden_subnet.config.settings import Config
from hidden_subnet.store import folders
from hidden_subnet.store.read import dig, number
from hidden_subnet.training.accounting import count_flops
from hidden_subnet.training.devices import choose_device
from hidden_subnet.training.speed import Speed, look

MOST_SECONDS = 10.0
"""Time for measuring the networks of a plan; the others follow from their operations."""
EPOCH_SECONDS = 0.03
"""Seconds of an epoch beside its images, for its row and its checkpoint; measured on a CPU."""
TESTS = 4
"""Evaluations on the test images: unpruned, under the first mask, last and best epoch."""


def estimates(configs: Sequence[Config], threads: int) -> list[float | None]:
    """Return the seconds that each run would take on this machine with so many threads; None where nothing tells.

    Those that train on several devices have none.
    """
    keys = [_key(config, threads) for config in configs]
    alike = {key: config for key, config in zip(keys, configs, strict=True) if config.train.devices == 1}
    known = _read()
    found = {key: known[key] for key in alike if key in known}
    until = time.monotonic() + MOST_SECONDS
    for key, config in alike.items():
        if key not in found and time.monotonic() < until:
            with suppress(RuntimeError, MemoryError, ValueError, TypeError):  # the run says why
                found[key] = _fastest(config, config.train.threads or threads)
    if not found.keys() <= known.keys():
        _write(known | found)
    if found.keys() < alike.keys():
        found |= _from_operations(alike, found)
    return [seconds(config, found.get(key)) for key, config in zip(keys, configs, strict=True)]


def _from_operations(alike: Mapping[str, Config], found: Mapping[str, Speed]) -> dict[str, Speed]:
    """Return the speeds that are not `found`: those of operations as fast as the measured ones are on average."""
    counts = {key: count_flops(config.model, info_of(config.data)) for key, config in alike.items()}
    flops = {key: counted.total for key, counted in counts.items() if counted}
    measured = [(speed, flops[key]) for key, speed in found.items() if key in flops]
    if not measured:
        return {}
    trained = statistics.fmean(speed.trained / each for speed, each in measured)
    evaluated = statistics.fmean(speed.evaluated / each for speed, each in measured)
    return {key: Speed(each * trained, each * evaluated) for key, each in flops.items() if key not in found}


def _fastest(config: Config, threads: int) -> Speed:
    """Measure with one thread too: where other programs use the cores, several threads wait for one another."""
    before, found = torch.get_num_threads(), []
    try:
        for count in sorted({1, threads}):
            torch.set_num_threads(count)
            found.append(look(config, choose_device(config.train.device)))
    finally:
        torch.set_num_threads(before)
    return Speed(min(each.trained for each in found), min(each.evaluated for each in found))


def seconds(config: Config, speed: Speed | None) -> float | None:
    """Return the time of a run whose images take so long."""
    if speed is None:
        return None
    info, data = info_of(config.data), config.data
    held = held_out(info.train, data.validation)
    images = config.train.batch_size if data.one_batch else trained_on(info.train - held, data.fraction)
    epochs = config.train.epochs if method_traits(config).is_trained() else 0
    tested = TESTS if epochs else TESTS // 2
    per_epoch = images * speed.trained + held * speed.evaluated + EPOCH_SECONDS
    return epochs * per_epoch + tested * info.test * speed.evaluated


def _key(config: Config, threads: int) -> str:
    """Return what the speed of a run depends on, as text."""
    settings, info = as_dict(config), info_of(config.data)
    train = {name: settings["train"][name] for name in ("batch_size", "precision", "channels_last", "accumulate")}
    parts = [settings["model"], settings["method"]["name"], settings["pruning"]["structure"], train]
    threads = config.train.threads or threads
    device = choose_device(config.train.device)
    machine = [platform.node(), device, config.train.devices, threads, torch.__version__]
    return json.dumps([*machine, *parts, info.shape, info.classes], sort_keys=True)


def _path() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hidden_subnet" / "speed.json"


def _read() -> dict[str, Speed]:
    try:
        content = folders.read_json(_path())
    except (OSError, ValueError):
        return {}
    found = {}
    for key, each in content.items() if isinstance(content, dict) else ():
        trained, evaluated = number(dig(each, "trained")), number(dig(each, "evaluated"))
        if trained is not None and evaluated:
            found[key] = Speed(trained, evaluated)
    return found


def _write(known: dict[str, Speed]) -> None:
    content = json.dumps({key: asdict(each) for key, each in known.items()}, indent=1)
    with suppress(OSError):  # it is measured again
        folders.make_folder(_path().parent)
        folders.write_atomically(_path(), content.encode())
