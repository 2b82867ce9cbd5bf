"""The settings of a run as typed dataclasses: what exists, what it means, and which default it has."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

MISSING: Any = "???"
"""OmegaConf's word for a value that a file of conf/ gives; it is not imported here."""

# The values are the names: OmegaConf takes a number for the value of a choice, and train.optimizer=1 must not pass.
Library = Enum("Library", {"own": "own", "torchvision": "torchvision"})
Norm = Enum("Norm", {"batch_fixed": "batch_fixed", "batch": "batch"})
Masking = Enum("Masking", {"masked": "masked", "dense": "dense"})
InitName = Enum(
    "InitName",
    {
        "signed_constant": "signed_constant",
        "unsigned_constant": "unsigned_constant",
        "kaiming_normal": "kaiming_normal",
        "kaiming_uniform": "kaiming_uniform",
        "xavier_normal": "xavier_normal",
        "xavier_constant": "xavier_constant",
        "standard": "standard",
    },
)
Fan = Enum("Fan", {"fan_in": "fan_in", "fan_out": "fan_out"})
Scale = Enum("Scale", {"none": "none", "density": "density", "reference": "reference"})
DataName = Enum(
    "DataName",
    {
        "digits": "digits",
        "mnist": "mnist",
        "fashion_mnist": "fashion_mnist",
        "cifar10": "cifar10",
        "cifar100": "cifar100",
        "synthetic": "synthetic",
        "bigcifar10": "bigcifar10",
        "imagenet": "imagenet",
        "tiny_imagenet": "tiny_imagenet",
    },
)
PruningName = Enum("PruningName", {"layerwise": "layerwise", "global": "global"})
Evaluation = Enum("Evaluation", {"sample": "sample", "threshold": "threshold", "mean": "mean"})
ScoreInit = Enum("ScoreInit", {"uniform": "uniform", "constant": "constant"})
OptimizerName = Enum("OptimizerName", {"sgd": "sgd", "adam": "adam"})
ScheduleName = Enum("ScheduleName", {"cosine": "cosine", "constant": "constant", "multistep": "multistep"})
TrackerName = Enum("TrackerName", {"wandb": "wandb", "tensorboard": "tensorboard", "both": "both", "none": "none"})
TrackerMode = Enum("TrackerMode", {"auto": "auto", "online": "online", "offline": "offline"})
OnError = Enum("OnError", {"continue": "continue", "stop": "stop"})
Precision = Enum("Precision", {"fp32": "fp32", "bf16": "bf16"})
Device = Enum("Device", {"auto": "auto", "cpu": "cpu", "cuda": "cuda", "mps": "mps"})


@dataclass(kw_only=True, slots=True)
class Model:
    name: str = MISSING
    """One of models.plan.NAMES, or with library=torchvision any classification network of torchvision.models."""
    library: Library = Library.own
    """Written by model=torchvision."""
    width: float = 1.0
    """Multiplies every hidden layer's channels and features."""
    norm: Norm = Norm.batch_fixed
    """batch_fixed: batch norm has no parameters; batch: a factor and a shift a channel, frozen at 1 and 0 where the
    weights are frozen too (as in the authors' code), trained with method=dense."""
    first_layer: Masking = Masking.masked
    """dense: all of its weights stay, random and frozen, and are no part of what prune_rate is a fraction of."""
    last_layer: Masking = Masking.masked
    temperature: float = 1.0
    """The logits are divided by it, in training and evaluation. In a network without biases and norm layers, weights
    that are c times as large in each of L layers are the same as the temperature c^-L: a control for init.scale."""


@dataclass(kw_only=True, slots=True)
class Init:
    name: InitName = MISSING
    mode: Fan = Fan.fan_in
    """Which fan sets the variance; the Xavier rules and `standard` fix their own."""
    scale: Scale = Scale.none
    """density: the standard deviation is divided by sqrt(1 - prune_rate), so that a pruned layer keeps its scale.

    reference: by sqrt(prune_rate), as the authors' code does, where the rate is upside down; only to reproduce it.
    """


@dataclass(kw_only=True, slots=True)
class Found:
    """What the folders of image files hold; counted when a config is composed (dataset.counted), never typed."""

    classes: int = 0
    train: int = 0
    test: int = 0
    digest: str = ""
    """Of the classes and the names of their images."""


@dataclass(kw_only=True, slots=True)
class Data:
    name: DataName = MISSING
    root: str = "data"
    """Folder of the downloaded files; created when something must be downloaded."""
    validation: float = 0.1
    """Fraction of the training images held out to choose the best epoch; 0 trains on all of them."""
    crop: int = 0
    """Random crop: zero pixels added on each side before an image-sized window is cut."""
    flip: bool = False
    """Random horizontal flip."""
    resized_crop: bool = False
    """In training a random window of 8 to 100 % of the image's area, resized to the image's size."""
    pad: int = 0
    """Zero pixels added on each side of every image, in training and test."""
    size: int = 0
    """Side in pixels to which images are resized; 0 leaves those as they are that do not come from folders."""
    resize: int = 0
    """Image files: the shorter side, before the middle of data.size pixels is cut out; 0 means data.size."""
    fraction: float = 1.0
    """Of the images left to train on, so many are trained on, the same fraction of each class."""
    one_batch: bool = False
    """Train on one batch of images only, the same in every step, not augmented: a network that learns overfits it."""
    workers: int | None = None
    """Processes that read image files; by default one a thread of the run, at most 8."""
    found: Found = field(default_factory=Found)


@dataclass(kw_only=True, slots=True)
class Pruning:
    name: PruningName = MISSING
    floor: float = 0.1
    """global: every layer keeps at least this fraction of what `layerwise` would keep of it, and one weight."""
    ramp_epochs: int = 0
    """Epochs over which the rate rises from start_rate to prune_rate, as a cubic; 0: prune_rate from the first."""
    start_rate: float = 0.0


@dataclass(kw_only=True, slots=True)
class Method:
    """One dataclass an option of the group `method`; a setting of a method is a field of its dataclass."""

    name: str = MISSING


@dataclass(kw_only=True, slots=True)
class EdgePopup(Method):
    name: str = "edge_popup"


@dataclass(kw_only=True, slots=True)
class Dense(Method):
    name: str = "dense"


@dataclass(kw_only=True, slots=True)
class Random(Method):
    name: str = "random"


@dataclass(kw_only=True, slots=True)
class LastLayer(Method):
    name: str = "last_layer"


@dataclass(kw_only=True, slots=True)
class Sampled(Method):
    name: str = "sampled"
    evaluation: Evaluation = Evaluation.sample
    """What is measured: a mask drawn for each evaluation, sigmoid(score) > 1/2, or weight * sigmoid(score)."""
    score_init: ScoreInit = ScoreInit.uniform
    """uniform: within 1/sqrt(fan_in), as the authors' code."""
    score_constant: float = 0.0
    """constant: the first score of every weight; 0 keeps half of them, 2 keeps 88 %."""
    penalty: float = 0.0
    """Times the expected number of kept weights, added to the loss: drives the density down."""


@dataclass(kw_only=True, slots=True)
class RandomTrained(Method):
    name: str = "random_trained"


@dataclass(kw_only=True, slots=True)
class Dnw(Method):
    name: str = "dnw"


@dataclass(kw_only=True, slots=True)
class WarmupThenPrune(Method):
    name: str = "warmup_then_prune"
    weight_epochs: int = 6
    """Epochs in which the weights train and nothing is removed; then they freeze and the scores train."""


METHODS: dict[str, type[Method]] = {"edge_popup": EdgePopup, "sampled": Sampled, "dense": Dense, "random": Random}
METHODS |= {"random_trained": RandomTrained, "dnw": Dnw, "warmup_then_prune": WarmupThenPrune, "last_layer": LastLayer}
UNMASKED = (Dense, LastLayer)
"""Methods that remove no weights: a prune rate, scores and a scale for them mean nothing there."""


@dataclass(kw_only=True, slots=True)
class Train:
    epochs: int = 15
    batch_size: int = 64
    lr: float = 0.1
    """Peak learning rate; each method sets its own default (conf/method), the command line wins."""
    optimizer: OptimizerName = OptimizerName.sgd
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    norm_decay: bool = True
    """false: norm layers' scales and shifts, and biases, are not decayed (the authors' no_bn_decay)."""
    schedule: ScheduleName = ScheduleName.cosine
    warmup_epochs: int = 0
    milestones: list[int] = field(default_factory=list)
    """multistep: the epochs at which the learning rate is multiplied by gamma."""
    gamma: float = 0.1
    label_smoothing: float = 0.0
    norm_batches: int = 0
    """Before each evaluation, take the statistics of batch norm anew from so many training batches; 0: those that the
    training keeps."""
    precision: Precision = Precision.fp32
    """bf16: convolutions and products in bfloat16; scores, thresholds, loss and optimizer stay float32."""
    channels_last: bool = False
    """Memory layout of images and activations; the mask is the same."""
    compile: bool = False
    """The network of a training step by torch.compile, as one graph; the masks are worked out before it, as ever."""
    cuda_graph: bool = False
    """Each epoch records a step on the GPU and replays it: the same kernels, launched at once."""
    device: Device = Device.auto
    devices: int = 1
    """Processes, one a device, that train the run together; each takes its part of every batch."""
    sync_norm: bool = False
    """Several GPUs: batch norm over the whole batch; false: each takes the statistics of its own part."""
    threads: int | None = None
    """CPU threads; by default all cores for one run, cores / slots in a sweep."""
    profile: bool = False
    """Write a trace of a few steps (hidden_subnet/profile.py) into the run's folder."""


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    minutes: float = 5.0
    """Least time between two checkpoints that are written only for going on after an interruption."""
    every: int = 0
    """Also keep what was trained after every so many epochs; 0 keeps first, best and last only."""


@dataclass(kw_only=True, slots=True)
class Claim:
    silent_seconds: float = 90.0
    """A run whose process gives no sign of life for so long is taken over; ten signs are given in that time."""


@dataclass(kw_only=True, slots=True)
class Tracker:
    name: TrackerName = MISSING
    project: str = "hidden_subnet"
    entity: str | None = None
    mode: TrackerMode = TrackerMode.auto
    """W&B: auto is online where a key is found and offline elsewhere."""
    tags: list[str] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Seeds:
    weights: int | None = None
    scores: int | None = None
    data: int | None = None
    split: int | None = None


@dataclass(kw_only=True, slots=True)
class Config:
    model: Model = field(default_factory=Model)
    init: Init = field(default_factory=Init)
    data: Data = field(default_factory=Data)
    pruning: Pruning = field(default_factory=Pruning)
    method: Method = field(default_factory=Method)
    train: Train = field(default_factory=Train)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    claim: Claim = field(default_factory=Claim)
    tracker: Tracker = field(default_factory=Tracker)
    seeds: Seeds = field(default_factory=Seeds)
    pretrained: str | None = None
    """A file of weights, or a run: they take the place of the random ones before masking."""
    pretrained_sha256: str | None = None
    """Of that file; found out when the command is read, and refused if it is given and another."""
    evaluate: str | None = None
    """A finished run, or one of its checkpoints: measure it again and compare, train nothing."""
    prune_rate: float = 0.5
    """Fraction of the weights REMOVED: 0 keeps all of them, 0.9 keeps one in ten."""
    seed: int = 0
    out: str = "runs"
    force: bool = False
    """Run again what is already finished."""
    plan: bool = False
    """Say what would run and how long it may take; run nothing."""
    on_error: OnError = OnError["continue"]
    """stop: the first run that fails ends the sweep, whose other runs save and stop."""
    grids: list[Any] = field(default_factory=list)
    """Written by a preset (sweeps/): each item maps settings to the values to combine."""
