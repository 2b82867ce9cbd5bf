"""Every rule that a config must keep, checked before the first job starts: the value, the rule, what to do."""

import math
from collections.abc import Iterator

from hidden_subnet.check_model import model_problems
from hidden_subnet.config import METHODS, Config, Dense, Fan, OptimizerName, Scale, ScheduleName
from hidden_subnet.data.info import INFO, held_out

FIXED_FAN = ("xavier_normal", "xavier_constant", "standard")


class ConfigError(ValueError):
    """A user's mistake, told in one line."""


def check(config: Config) -> None:
    """Raise ConfigError with the first rule that is broken."""
    for problem in _problems(config):
        raise ConfigError(problem)


def _problems(config: Config) -> Iterator[str]:
    rate = config.prune_rate
    if not 0 <= float(f"{rate:.12g}") < 1:  # 12 digits are what counts (masks.kept_count)
        yield (
            f"prune_rate={rate:g}: the fraction of weights removed must be at least 0 and below 1 "
            "(0.9 keeps one weight in ten)"
        )
    if not config.out.strip():
        yield "out=: name the folder for the results, as in out=runs"
    if not 1 <= config.claim.silent_seconds <= 86400:
        yield f"claim.silent_seconds={config.claim.silent_seconds:g}: must be 1 second to a day (86400)"
    yield from _training(config)
    yield from _parts(config)
    yield from model_problems(config)


def _parts(config: Config) -> Iterator[str]:
    if type(config.method) is not METHODS.get(config.method.name):
        yield f"method.name={config.method.name}: choose a method with method={' or method='.join(METHODS)}"
    init = config.init
    if init.mode is not Fan.fan_in and init.name.name in FIXED_FAN:
        yield f"init.mode={init.mode.name}: init={init.name.name} fixes its own fan; leave init.mode away"
    if init.scale is Scale.density and init.name.name == "standard":
        yield (
            "init.scale=density: init=standard is torch's own default and has no scale; "
            "choose init.scale=none or another init"
        )
    if init.scale is Scale.density and isinstance(config.method, Dense):
        yield "init.scale=density: method=dense removes no weights, so there is nothing to scale by; choose none"
    data = config.data
    if not 0 <= data.validation < 1:
        yield f"data.validation={data.validation:g}: the fraction held out must be at least 0 and below 1"
    elif data.validation > 0:
        held, train = held_out(data.name.name, data.validation), INFO[data.name.name].train
        if not 0 < held < train:
            yield (
                f"data.validation={data.validation:g}: holds out {held} of {train} images; "
                "at least one must be held out and one must be left (0 trains on all)"
            )
    if not 0 <= data.crop <= 64:
        yield f"data.crop={data.crop}: the padding must be 0 (no random crop) to 64 pixels"
    seeds = config.seeds
    for name, seed in [
        ("seed", config.seed),
        ("seeds.weights", seeds.weights),
        ("seeds.scores", seeds.scores),
        ("seeds.data", seeds.data),
        ("seeds.split", seeds.split),
    ]:
        if seed is not None and seed < 0:
            yield f"{name}={seed}: a seed must be 0 or larger"
    if not config.checkpoint.minutes >= 0:
        yield f"checkpoint.minutes={config.checkpoint.minutes:g}: must be 0 or larger"


def _training(config: Config) -> Iterator[str]:
    train = config.train
    for name, value in [
        ("epochs", train.epochs),
        ("batch_size", train.batch_size),
        ("threads", train.threads),
    ]:
        if value is not None and value < 1:
            yield f"train.{name}={value}: must be 1 or larger"
    for name, number in [
        ("lr", train.lr),
        ("momentum", train.momentum),
        ("weight_decay", train.weight_decay),
        ("gamma", train.gamma),
    ]:
        if not (math.isfinite(number) and number >= 0):
            yield f"train.{name}={number:g}: must be 0 or larger"
    if train.threads is not None and train.threads > 1024:
        yield f"train.threads={train.threads}: must be at most 1024; leave it away for all cores"
    if train.lr == 0:
        yield "train.lr=0: nothing would be trained; method=random is the untrained control"
    if not train.momentum < 1:
        yield f"train.momentum={train.momentum:g}: must be below 1"
    if not 0 <= train.label_smoothing < 1:
        yield f"train.label_smoothing={train.label_smoothing:g}: must be at least 0 and below 1"
    if train.nesterov and (train.optimizer is OptimizerName.adam or train.momentum == 0):
        yield "train.nesterov=true: needs train.optimizer=sgd and a train.momentum above 0"
    if not 0 <= train.warmup_epochs <= train.epochs:
        yield f"train.warmup_epochs={train.warmup_epochs}: must be 0 to train.epochs={train.epochs}"
    if train.milestones and train.schedule is not ScheduleName.multistep:
        yield f"train.milestones={train.milestones}: needs train.schedule=multistep"
    if train.schedule is ScheduleName.multistep:
        marks = train.milestones
        if not marks or marks != sorted(set(marks)) or marks[0] < 1 or marks[-1] >= train.epochs:
            yield (
                f"train.milestones={marks}: train.schedule=multistep needs rising epochs "
                f"from 1 to {train.epochs - 1}, as in 'train.milestones=[5,10]'"
            )
