"""Every rule that a config must keep, checked before the first job starts: the value, the rule, what to do."""

import math
from collections.abc import Iterator

from hidden_subnet.check_data import data_problems
from hidden_subnet.check_model import model_problems
from hidden_subnet.identity import has_rate
from hidden_subnet.settings import (
    METHODS,
    Config,
    Dnw,
    Fan,
    Library,
    OptimizerName,
    Random,
    RandomTrained,
    Sampled,
    Scale,
    ScheduleName,
    WarmupThenPrune,
)

FIXED_FAN = ("xavier_normal", "xavier_constant", "standard")
REFERENCE_SCALES = ("signed_constant", "unsigned_constant", "kaiming_normal")


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
    yield from _scale(config)
    yield from _method(config)
    yield from _pruning(config)
    yield from model_problems(config)


def _parts(config: Config) -> Iterator[str]:
    if type(config.method) is not METHODS.get(config.method.name):
        yield f"method.name={config.method.name}: choose a method with method={' or method='.join(METHODS)}"
    init = config.init
    if init.mode is not Fan.fan_in and init.name.name in FIXED_FAN:
        yield f"init.mode={init.mode.name}: init={init.name.name} fixes its own fan; leave init.mode away"
    yield from data_problems(config)
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
    if config.checkpoint.every < 0:
        yield f"checkpoint.every={config.checkpoint.every}: must be a number of epochs; 0 keeps first, best and last"


def _scale(config: Config) -> Iterator[str]:
    init, scale = config.init, config.init.scale
    if scale is Scale.none:
        return
    if scale is Scale.density and init.name.name == "standard":
        yield (
            "init.scale=density: init=standard is torch's own default and has no scale; "
            "choose init.scale=none or another init"
        )
    if scale is Scale.reference and init.name.name not in REFERENCE_SCALES:
        yield (
            f"init.scale=reference: the authors' code leaves init={init.name.name} unscaled; "
            f"choose init.scale=none, or init={' or init='.join(REFERENCE_SCALES)}"
        )
    if not has_rate(config.method):
        why = "has no prune rate" if isinstance(config.method, Sampled) else "removes no weights"
        yield (
            f"init.scale={scale.name}: method={config.method.name} {why}, so there is nothing to scale by; "
            "choose init.scale=none"
        )
    elif scale is Scale.reference and float(f"{config.prune_rate:.12g}") == 0:
        yield (
            f"init.scale=reference: divides by sqrt(prune_rate), which is 0 for prune_rate={config.prune_rate:g}; "
            "choose another rate, or init.scale=none"
        )


def _method(config: Config) -> Iterator[str]:
    method = config.method
    if isinstance(method, Sampled):
        if not (math.isfinite(method.penalty) and method.penalty >= 0):
            yield f"method.penalty={method.penalty:g}: must be 0 or larger"
        if not math.isfinite(method.score_constant):
            yield f"method.score_constant={method.score_constant:g}: must be a number; sigmoid of it is kept at first"
    if isinstance(method, WarmupThenPrune) and not 1 <= method.weight_epochs < config.train.epochs:
        yield (
            f"method.weight_epochs={method.weight_epochs}: must be at least 1 and below "
            f"train.epochs={config.train.epochs}, so that both the weights and then the scores train"
        )
    if isinstance(method, Dnw) and "constant" in config.init.name.name:
        yield (
            f"init={config.init.name.name}: method=dnw keeps the weights of largest magnitude, and here all of a layer "
            "have the same; choose init=kaiming_normal"
        )


def _pruning(config: Config) -> Iterator[str]:
    pruning, method = config.pruning, config.method
    if not 0 <= pruning.floor <= 1:
        yield f"pruning.floor={pruning.floor:g}: must be 0 to 1, the fraction of its fair share that a layer keeps"
    if not 0 <= pruning.start_rate < 1:
        yield f"pruning.start_rate={pruning.start_rate:g}: the fraction removed at first must be 0 or larger, below 1"
    if pruning.ramp_epochs < 0:
        yield f"pruning.ramp_epochs={pruning.ramp_epochs}: must be 0 (no ramp) or larger"
    if pruning.ramp_epochs and has_rate(method) and not isinstance(method, Random | RandomTrained):
        dense = method.weight_epochs if isinstance(method, WarmupThenPrune) else 0
        if dense + pruning.ramp_epochs >= config.train.epochs:
            after = f" after method.weight_epochs={dense}" if dense else ""
            yield (
                f"pruning.ramp_epochs={pruning.ramp_epochs}{after}: must end before "
                f"train.epochs={config.train.epochs}, so that an epoch is trained at prune_rate"
            )
        if pruning.start_rate > config.prune_rate:
            yield (
                f"pruning.start_rate={pruning.start_rate:g}: is above prune_rate={config.prune_rate:g}, "
                "to which the ramp rises"
            )


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
    if train.compile and train.devices > 1:
        yield f"train.compile=true: works with one device, and train.devices={train.devices}; leave one of them away"
    if train.cuda_graph:
        yield from _graph(config)
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


def _graph(config: Config) -> Iterator[str]:
    """What the host does anew in each step cannot be recorded."""
    why = ""
    if config.train.devices > 1:
        why = f"the {config.train.devices} processes of train.devices agree in each step"
    elif isinstance(config.method, Sampled):
        why = "method=sampled draws the masks of each step from a seed of its own"
    elif config.model.library is Library.torchvision:
        why = "model=torchvision draws dropout in each step from a seed of its own"
    if why:
        yield f"train.cuda_graph=true: {why}, which a recorded step cannot; leave train.cuda_graph away"
