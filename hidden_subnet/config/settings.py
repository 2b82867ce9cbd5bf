"""The settings of a run as typed dataclasses: names, meanings, defaults, and whether they are part of the run's id.

`id` of each field says when it is part of the id (hidden_subnet/config/identity.py):

always      two values are two runs
if_changed  it was added later: it is part of the id where it differs from its default, so older runs keep their ids
never       it changes no result: the folder of a run, its device, its reports
"""

from collections.abc import Callable
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, field
from enum import Enum
from typing import Any, Literal

from hidden_subnet.config.ranges import Range

MISSING: Any = "???"
"""OmegaConf's mark for a value that a file in conf/ must give; OmegaConf is not imported here."""
MOST_THREADS = 1024
"""Largest number of CPU threads of a run."""


def setting(
    default: Any = MISSING,
    *,
    id: Literal["always", "if_changed", "never"],
    help: str = "",
    factory: Callable[[], Any] | None = None,
    within: Range | None = None,
    is_path: bool = False,
) -> Any:
    """Return a dataclass field; `help` is its line in --help, which does not list a setting without one.

    >>> @dataclass(kw_only=True, slots=True)
    ... class MySettings(hs.MethodSettings):
    ...     name: str = hs.setting("my_method", id="always")
    ...     beta: float = hs.setting(0.3, id="always", help="weight of the penalty")

    within: of a number, which is refused outside it, with a right one. is_path: whether the files of a run have it as
    an absolute path, so that it means the same in any directory; such a setting has the id "never".
    """
    metadata = {"id": id, "help": help, "within": within, "is_path": is_path}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def default_value(field: "Field[Any]") -> Any:
    """Return the default of a settings field; None where it has none."""
    if field.default_factory is not NO_DEFAULT:
        return field.default_factory()
    return None if field.default is NO_DEFAULT else field.default


# Closed choices; what can be extended (models, data, ...) is a name that a registry checks. The values are equal to the
# names, since OmegaConf accepts the value of an enum too: with numbers as values, train.precision=1 would pass.
Library = Enum("Library", {"own": "own", "torchvision": "torchvision", "timm": "timm"})
Norm = Enum("Norm", {"batch_fixed": "batch_fixed", "batch": "batch"})
Activation = Enum("Activation", {"relu": "relu", "elu": "elu"})
Masking = Enum("Masking", {"masked": "masked", "dense": "dense"})
Fan = Enum("Fan", {"fan_in": "fan_in", "fan_out": "fan_out"})
Scale = Enum("Scale", {"none": "none", "density": "density", "reference": "reference"})
TrackerMode = Enum("TrackerMode", {"auto": "auto", "online": "online", "offline": "offline"})
Artifacts = Enum("Artifacts", {"none": "none", "mask": "mask", "best": "best"})
ReportStyle = Enum("ReportStyle", {"paper": "paper", "talk": "talk", "screen": "screen"})
ReportMetric = Enum(
    "ReportMetric",
    {
        "last_test_top1": "last_test_top1",
        "best_test_top1": "best_test_top1",
        "last_validation_top1": "last_validation_top1",
        "best_validation_top1": "best_validation_top1",
        "last_train_top1": "last_train_top1",
    },
)
OnError = Enum("OnError", {"continue": "continue", "stop": "stop"})
Precision = Enum("Precision", {"fp32": "fp32", "bf16": "bf16"})
Keep = Enum("Keep", {"all": "all", "mask": "mask"})
Ramp = Enum("Ramp", {"cubic": "cubic", "geometric": "geometric"})
Structure = Enum("Structure", {"weight": "weight", "n_m": "n_m", "block": "block", "channel": "channel"})
Indivisible = Enum("Indivisible", {"refuse": "refuse", "dense": "dense"})
Device = Enum("Device", {"auto": "auto", "cpu": "cpu", "cuda": "cuda", "mps": "mps"})


@dataclass(kw_only=True, slots=True)
class Model:
    """The network."""

    name: str = setting(id="always")
    """A name of registries.MODELS, or that of a network in another `library`."""
    library: Library = setting(Library.own, id="if_changed")
    """Set by model=torchvision and model=timm."""
    width: float = setting(
        1.0, id="always", help="multiplies the channels of every hidden layer", within=Range(0, 100, above=True)
    )
    norm: Norm = setting(
        Norm.batch_fixed,
        id="if_changed",
        help="residual networks: batch norm without parameters; batch: with factors and shifts",
    )
    """batch: a factor and a shift for each channel, frozen at 1 and 0 where the weights are frozen (as in the code of
    Ramanujan et al.), trained where and while the weights are trained."""
    activation: Activation = setting(
        Activation.relu, id="if_changed", help="relu or elu after the hidden layers of our own networks"
    )
    first_layer: Masking = setting(
        Masking.masked, id="if_changed", help="dense: its weights all stay and do not count for prune_rate"
    )
    """dense: its weights are frozen where the masked weights are frozen, and trained where and while they are."""
    last_layer: Masking = setting(Masking.masked, id="if_changed", help="the same for the last layer")
    temperature: float = setting(
        1.0,
        id="if_changed",
        help="the logits are divided by it, in training and evaluation",
        within=Range(1e-12, 1e12, note="the logits are divided by it"),
    )
    """In a network of L layers without biases and norm layers, the temperature c^-L has the same effect as weights
    that are c times as large in every layer: a control for init.scale."""


@dataclass(kw_only=True, slots=True)
class CustomModel(Model):
    """A network that no decorator has registered (hidden_subnet/models/custom.py)."""

    name: str = setting("custom", id="always")
    target: str = setting("", id="always")
    """A class or function of a file that `use` names with it, as use=my_nets.py:Net; model.target=my_nets.py:Net on the
    command line does both."""
    args: dict[str, Any] = setting(id="always", factory=dict)
    """The arguments with which it is called."""


@dataclass(kw_only=True, slots=True)
class Init:
    """The distribution of the random weights."""

    name: str = setting(id="always")
    """A name of registries.INITS."""
    mode: Fan = setting(Fan.fan_in, id="always", help="which fan sets the variance of the weights: fan_in or fan_out")
    """Has no effect on the Xavier inits and `standard`."""
    scale: Scale = setting(
        Scale.none, id="always", help="density: divide the weights' standard deviation by sqrt(1 - prune_rate)"
    )
    """density keeps the variance of a pruned layer's outputs, and does not scale a layer that stays dense. reference
    divides by sqrt(prune_rate) in every layer, as the code of Ramanujan et al. does, which takes the prune rate for the
    density; it is there to reproduce that code."""
    attention_scale: float = setting(
        1.0,
        id="if_changed",
        help="multiplies the random weights of queries and keys in nn.MultiheadAttention",
        within=Range(0, 1000, above=True, note="1 changes nothing"),
    )
    """The dimension of a head's keys to the power 1/4, 2.8 for 64, was near the best for random GPT-2 (Otsuka et al.
    2025, arXiv 2511.04217)."""


@dataclass(kw_only=True, slots=True)
class FoundImages:
    """The images found on disk while a config is composed; a user never sets them."""

    classes: int = setting(0, id="always")
    train: int = setting(0, id="always")
    test: int = setting(0, id="always")
    """Counts of image folders; 0 for data sets in memory, whose sizes are known."""
    digest: str = setting("", id="always")
    """Digest of the content (data/found_images.py), so that other images are another run; of classes and names only in
    runs of 0.1.0. Empty where the files are those that are published, or part of the installation."""


@dataclass(kw_only=True, slots=True)
class Data:
    """The data set, its validation split and the augmentation of its training images."""

    name: str = setting(id="always")
    """A name of registries.DATA."""
    root: str = setting("data", id="never", help="folder of the image files; downloads go there", is_path=True)
    validation: float = setting(
        0.1,
        id="always",
        help="fraction of the training images, drawn at random, that is held out to choose the best epoch",
        within=Range(0, 1, "the fraction held out", below=True),
    )
    """0 trains on all training images. Drawn from all images alike, so that classes have about their share of them."""
    crop: int = setting(
        0,
        id="always",
        help="random crop: pixels of padding on each side",
        within=Range(0, 64, "the pixels of padding", "0 is no random crop"),
    )
    flip: bool = setting(False, id="always", help="random horizontal flip")
    resized_crop: bool = setting(
        False, id="if_changed", help="train on random windows of 8 to 100 % of the area, resized to the image's size"
    )
    augment: list[Any] = setting(
        id="if_changed",
        factory=list,
        help="transforms of torchvision.transforms.v2 for training images, as in 'data.augment=[RandomVerticalFlip]'",
    )
    """Names, or names with arguments: [RandomVerticalFlip,{RandomRotation:{degrees:15}}]. After crop and flip; images
    in memory are enlarged after them (data/augment.py)."""
    pad: int = setting(
        0,
        id="if_changed",
        help="zero pixels added on each side of every image",
        within=Range(0, 64, "the pixels added on each side"),
    )
    size: int = setting(
        0,
        id="if_changed",
        help="side in pixels to which images are resized; 0 keeps their size",
        within=Range(0, 4096, "the side of the images", "0 keeps them as they are"),
    )
    """Must be given for image folders."""
    resize: int = setting(0, id="if_changed", within=Range(0, 8192, "the shorter side", "0 is data.size"))
    """Image folders: shorter side in pixels before the center crop to data.size; 0 means data.size."""
    fraction: float = setting(
        1.0,
        id="if_changed",
        help="fraction of the training images that is used, stratified by class",
        within=Range(0, 1, "the fraction trained on", above=True),
    )
    """Fraction in (0, 1] of the training images, after the validation split, that is used; stratified by class, and at
    least one image of each."""
    one_batch: bool = setting(False, id="if_changed", help="train on one batch only, to see whether a network learns")
    """Every step has the same images, not augmented."""
    workers: int | None = setting(
        None,
        id="never",
        within=Range(0, 256, note="0: the run's own process reads; null: one for each thread, at most 8"),
    )
    """Number of processes that read image files; by default one for each thread of the run, at most 8."""
    trust_names: bool = setting(
        False, id="never", help="take older runs that knew their images by name only for runs on the images there now"
    )
    """Image folders: a run of 0.1.0 is then skipped, or resumed, under its old id."""
    found: FoundImages = setting(id="if_changed", factory=FoundImages)


@dataclass(kw_only=True, slots=True)
class Pruning:
    """The allocation of the prune rate to layers and epochs."""

    name: str = setting(id="always")
    """A name of registries.ALLOCATIONS."""
    floor: float = setting(
        0.1,
        id="always",
        within=Range(0, 1, "the fraction kept at least of what pruning=layerwise would keep of a layer"),
    )
    """global: each layer keeps at least this fraction of what `layerwise` would keep of it, and at least one weight."""
    ramp_epochs: int = setting(
        0,
        id="always",
        help="epochs over which the rate rises from pruning.start_rate to prune_rate",
        within=Range(0, note="0 is no ramp"),
    )
    """0 prunes at prune_rate from the first epoch on."""
    start_rate: float = setting(0.0, id="always", within=Range(0, 1, "the fraction removed at first", below=True))
    rates: dict[Any, Any] = setting(
        id="if_changed",
        factory=dict,
        help="rates of single layers, by name or pattern, as in 'pruning.rates={conv1:0.1,fc*:0.9}'",
    )
    """Names of layers, or patterns of names as those of files (fnmatch), and the fraction removed, from 0 to below 1
    (config/layer_rates.py). A name goes before patterns."""
    ramp: Ramp = setting(Ramp.cubic, id="if_changed")
    """The shape of the ramp. cubic: Zhu and Gupta 2017; geometric: each epoch keeps the same fraction of what the one
    before kept, as Gem-Miner does."""
    structure: Structure = setting(
        Structure.weight, id="if_changed", help="what is kept or removed together: weight, n_m, block or channel"
    )
    """n_m: exactly pruning.n of every pruning.m consecutive inputs. block, channel: whole blocks, or output channels,
    by the sum of their |scores|."""
    n: int | None = setting(
        None,
        id="never",
        within=Range(1, 32, "the weights kept of every pruning.m", "null follows prune_rate"),
    )
    """n_m: only checked against prune_rate, which says the same and can be swept: N = M * (1 - prune_rate)."""
    m: int = setting(
        4,
        id="if_changed",
        help="n_m: consecutive inputs, of which pruning.m * (1 - prune_rate) are kept",
        within=Range(2, 32, "the consecutive inputs of a group"),
    )
    block: int = setting(
        4, id="if_changed", help="block: side of a block, in outputs and in inputs", within=Range(1, 1024)
    )
    indivisible: Indivisible = setting(
        Indivisible.refuse, id="if_changed", help="dense: a layer that groups or blocks do not divide keeps all weights"
    )


@dataclass(kw_only=True, slots=True)
class MethodSettings:
    """Base of the settings of a method, which its own file defines (hidden_subnet/methods/).

    >>> @dataclass(kw_only=True, slots=True)
    ... class MySettings(hs.MethodSettings):
    ...     name: str = hs.setting("my_method", id="always")
    """

    name: str = setting(id="always")


@dataclass(kw_only=True, slots=True)
class Train:
    """Training: optimizer, schedule, evaluation, number formats and devices.

    >>> train = hs.Train(epochs=10, lr=0.1)
    """

    epochs: int = setting(15, id="always", help="passes over the training images", within=Range(1))
    batch_size: int = setting(64, id="always", help="images per step", within=Range(1))
    lr: float = setting(
        0.1,
        id="always",
        help="peak learning rate; each method has its own default",
        within=Range(0, note="for a control that is not trained: method=random", above=True),
    )
    """conf/method/ sets the default of each method; the command line overrides it."""
    optimizer: str = setting(
        "sgd", id="always", help="sgd, adam, adamw, nadam, radam, adamax, adagrad, adadelta or rmsprop"
    )
    """A name of registries.OPTIMIZERS."""
    optimizer_args: dict[str, Any] = setting(
        id="if_changed",
        factory=dict,
        help="further arguments of the optimizer, as in 'train.optimizer_args={eps:1e-6}'",
    )
    momentum: float = setting(0.9, id="always", within=Range(0, 1, below=True))
    nesterov: bool = setting(False, id="always")
    weight_decay: float = setting(1e-4, id="always", within=Range(0))
    norm_decay: bool = setting(True, id="if_changed")
    """false: scales and shifts of norm layers, and biases, are not decayed (no_bn_decay of Ramanujan et al.)."""
    schedule: str = setting("cosine", id="always", help="cosine, constant or multistep")
    """A name of registries.SCHEDULES."""
    warmup_epochs: int = setting(0, id="always", within=Range(0))
    milestones: list[int] = setting(id="always", factory=list)
    """multistep: the epochs at which the learning rate is multiplied by gamma."""
    gamma: float = setting(0.1, id="always", within=Range(0))
    label_smoothing: float = setting(0.0, id="always", within=Range(0, 1, below=True))
    clip_norm: float | None = setting(
        None,
        id="if_changed",
        help="the largest norm of the gradient of a step, over all that is trained; a longer one is shortened to it",
        within=Range(0, above=True, note="null is no limit"),
    )
    accumulate: int = setting(
        1,
        id="if_changed",
        help="parts in which a batch passes through the network, to save memory; a step still is one batch",
        within=Range(1, note="1 passes it as a whole"),
    )
    """The gradients of the parts add up to that of the whole batch, to rounding; batch norm takes the statistics of
    each part."""
    norm_batches: int = setting(
        0,
        id="if_changed",
        help="recompute batch norm's statistics from this many batches before each evaluation",
        within=Range(0, note="0 uses running statistics"),
    )
    """Number of training batches from which batch-norm statistics are recomputed before each evaluation; 0 uses the
    running averages."""
    norm_affine: bool = setting(
        False, id="if_changed", help="learn a factor and a shift for each channel of batch norm beside the scores"
    )
    """They start at 1 and 0 (model.norm becomes batch), and train in every epoch at train.lr. Without it those that a
    network has train where and while the weights do."""
    precision: Precision = setting(
        Precision.fp32, id="if_changed", help="bf16: convolutions and products of the network in bfloat16"
    )
    """Scores, thresholds, loss and optimizer stay float32."""
    channels_last: bool = setting(False, id="if_changed", help="another memory layout; the mask is the same")
    compile: bool = setting(False, id="if_changed", help="compile the network of a step with torch.compile")
    """The network is one graph; the masks are computed before it, by the code that is used without it."""
    mask_kernels: bool = setting(False, id="never", help="on a GPU, compute the masks of all layers at once")
    """By Triton kernels, where pruning=layerwise; the masks are the same. The kernels have not run on a GPU yet."""
    cuda_graph: bool = setting(False, id="never", help="record a step on the GPU in each epoch, and replay it")
    """The kernels are the same, but launched together."""
    device: Device = setting(Device.auto, id="never", help="auto, cpu, cuda or mps")
    devices: int = setting(
        1, id="if_changed", help="processes that train one run together (DDP), one for each device", within=Range(1)
    )
    """Each process takes its shard of every batch; train.batch_size is the size of the whole batch."""
    sync_norm: bool = setting(False, id="never")
    """Several GPUs: batch norm takes the statistics of the whole batch; false: those of each GPU's shard."""
    threads: int | None = setting(
        None,
        id="never",
        help="CPU threads; by default all cores, in a sweep cores / slots",
        within=Range(1, MOST_THREADS, note="null is all cores"),
    )
    profile: bool = setting(False, id="never", help="write a trace of a few steps into the run's folder")


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """Checkpoints, besides first, best and last."""

    minutes: float = setting(5.0, id="never", within=Range(0))
    """Minimum time between two resume checkpoints."""
    every: int = setting(
        0,
        id="never",
        help="also keep a checkpoint every n epochs",
        within=Range(0, note="a number of epochs; 0 keeps first, best and last"),
    )
    """0 keeps only first, best and last."""
    keep: Keep = setting(
        Keep.all, id="never", help="mask: of a finished run keep its masks, a small file each, and no checkpoints"
    )
    """The file of masks of the last and of the best epoch (training/keep_masks.py) in the place of all checkpoints, of
    methods whose weights follow from the seed."""


@dataclass(kw_only=True, slots=True)
class Claim:
    """The claim by which a process keeps others from its run."""

    silent_seconds: float = setting(90.0, id="never", within=Range(1, 86400, note="a second to a day"))
    """A run without a sign of life for this long is taken over by another process; it gives ten signs in that time."""


@dataclass(kw_only=True, slots=True)
class Report:
    """The figures at the end of a sweep and of a run; `results` and `show` draw them again."""

    style: ReportStyle = setting(
        ReportStyle.paper, id="never", help="sizes in the figure of a sweep: paper, talk or screen"
    )
    metric: ReportMetric = setting(
        ReportMetric.last_test_top1, id="never", help="accuracy in it, by its column in results.csv"
    )
    x: str | None = setting(None, id="never", help="number along its x axis, as in report.x=lr; null: it is chosen")
    run: bool = setting(False, id="never", help="also draw every run from inside, as `show` does")


@dataclass(kw_only=True, slots=True)
class Tracker:
    """Experiment trackers, to which a run sends its metrics."""

    to: dict[str, bool] = setting(id="never", factory=dict)
    """Names of registries.TRACKERS, true where metrics are sent. A mapping, since Hydra merges mappings, not lists:
    tracker=[wandb,tensorboard] is both."""
    project: str | None = setting(None, id="never")
    """W&B: null is WANDB_PROJECT, or hidden_subnet."""
    entity: str | None = setting(None, id="never")
    """W&B: null is WANDB_ENTITY, or the account's default."""
    mode: TrackerMode = setting(TrackerMode.auto, id="never")
    """W&B: auto is online where an API key is found, and offline otherwise."""
    tags: list[str] = setting(id="never", factory=list)
    artifacts: Artifacts = setting(
        Artifacts.none,
        id="never",
        help="file of a finished run that W&B keeps: none, mask (small) or best (checkpoint)",
    )
    """Unless none, W&B also keeps figure, results.csv and tables of a sweep."""
    paths: bool = setting(
        False, id="never", help="W&B also gets the host's name, the program's path and absolute paths of settings"
    )
    histograms: int = setting(
        0,
        id="never",
        help="trackers also get histograms of the scores and a table of the layers every n epochs",
        within=Range(0, note="a number of epochs; 0 sends none"),
    )
    step_loss: int = setting(
        0,
        id="never",
        help="trackers also get the loss of every n-th step, for epochs that take long",
        within=Range(0, note="a number of steps; 0 sends none"),
    )
    alerts: bool = setting(False, id="never", help="W&B sends its user an alert when a run fails, or has collapsed")

    @property
    def enabled(self) -> list[str]:
        """Names of the trackers that metrics are sent to."""
        return [name for name, on in self.to.items() if on]


@dataclass(kw_only=True, slots=True)
class Seeds:
    """The seed of each random stream; null: the run's `seed`."""

    weights: int | None = setting(None, id="always", within=Range(0))
    scores: int | None = setting(None, id="always", within=Range(0))
    data: int | None = setting(None, id="always", within=Range(0))
    split: int | None = setting(None, id="always", within=Range(0))


@dataclass(kw_only=True, slots=True)
class Config:
    """All settings of a run."""

    model: Model = setting(id="always", factory=Model)
    init: Init = setting(id="always", factory=Init)
    data: Data = setting(id="always", factory=Data)
    pruning: Pruning = setting(id="always", factory=Pruning)
    method: MethodSettings = setting(id="always", factory=MethodSettings)
    train: Train = setting(id="always", factory=Train)
    checkpoint: Checkpoint = setting(id="never", factory=Checkpoint)
    claim: Claim = setting(id="never", factory=Claim)
    report: Report = setting(id="never", factory=Report)
    tracker: Tracker = setting(id="never", factory=Tracker)
    seeds: Seeds = setting(id="always", factory=Seeds)
    metrics: list[str] = setting(
        id="if_changed",
        factory=list,
        help="metrics of your own, measured at every evaluation, as in metrics=[my_metric]",
    )
    """Names of registries.METRICS, sorted. Part of the id, though the training is the same: a finished run without one
    has no value of it."""
    metric: dict[str, Any] = setting(id="if_changed", factory=dict)
    """The settings of each metric that has some, by its name, as metric.calibration.bins=30."""
    pretrained: str | None = setting(
        None, id="never", help="a file of weights, or a finished run, to start from instead of random weights"
    )
    pretrained_sha256: str | None = setting(None, id="if_changed")
    """Digest of the file, computed while the config is composed; a run whose file has another digest is refused."""
    mask: str | None = setting(
        None,
        id="never",
        help="a finished run, a file of masks, or a method that finds one first: method=finetune, fixed or edge_popup",
    )
    mask_sha256: str | None = setting(None, id="if_changed")
    """Digest of what the masks keep, by layer, computed while the config is composed: a run and the file of its masks
    have the same one. A run whose mask has another digest is refused."""
    mask_train: dict[str, Any] = setting(id="never", factory=dict)
    """Set while the config is composed: what of `train` is other in the search of mask=<method>, by its defaults."""
    extend: str | None = setting(
        None, id="never", help="a finished run from whose end this one goes further, for train.epochs more"
    )
    extend_sha256: str | None = setting(None, id="if_changed")
    """Digest of the scores and weights at its end, computed while the config is composed."""
    evaluate: str | None = setting(
        None, id="never", help="a finished run, or one of its checkpoints: measure it again, train nothing"
    )
    prune_rate: float = setting(
        0.5,
        id="always",
        help="fraction of the weights REMOVED, from 0 to below 1",
        within=Range(0, 1, "the fraction of weights removed", "0.9 keeps one weight in ten", below=True),
    )
    """0 keeps all weights, 0.9 keeps one in ten."""
    seed: int = setting(
        0,
        id="never",
        help="all random numbers follow from it; seeds.weights, .scores, .data, .split set one stream",
        within=Range(0),
    )
    """It is part of the id through `seeds`."""
    out: str = setting("runs", id="never", help="folder for results; a finished run there is not run again")
    force: bool = setting(False, id="never", help="run again what is already finished")
    resume_stopped: bool = setting(
        False, id="never", help="continue runs that were stopped on purpose (stop_collapsed, a search's pruner)"
    )
    stop_collapsed: bool = setting(
        False, id="never", help="stop a run that is still at chance on its validation images after stop_collapsed_epoch"
    )
    stop_collapsed_epoch: int = setting(5, id="never", within=Range(1))
    plan: bool = setting(False, id="never", help="show what would run and how long it may take; run nothing")
    on_error: OnError = setting(
        OnError["continue"], id="never", help="stop: the first run that fails ends the sweep; other runs save and stop"
    )
    use: list[str] = setting(
        id="never", factory=list, help="files of your own parts, imported first, as in use=my_parts.py model=my_net"
    )
    """Paths of Python files, or names of modules; only the command line names them (config/own_parts.py)."""
    code_digest: str | None = setting(
        None, id="if_changed", help="ignore: take finished runs on a former version of your own parts for these"
    )
    """Digest of the code of the own parts that the run uses, found while the config is composed."""
    code: str | None = setting(None, id="never")
    """Digest of the code that computes the run; another one than code_digest only with code_digest=ignore."""
    grids: list[Any] = setting(id="never", factory=list)
    """Set by a preset (sweeps/): each item maps settings to the values to combine."""
