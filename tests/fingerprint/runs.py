"""Fingerprint of runs: the same small runs by the code of an old commit and by this checkout, compared to the last bit.

    python tests/fingerprint/runs.py [--old COMMIT] [--new DIR] [--keep DIR] [--cache DIR]

Each command of GROUPS is given to `python launch.py -m` of both. Compared are the folder names of the runs and, in each
folder, every tensor and value of the checkpoints, metrics.jsonl and result.json, but for durations and the machine,
and for what differs on purpose (`as_meant`).
Runs on image folders have other names in the new code, whose ids have a digest of the images' content instead of their
names: they are found by their settings, and only that digest and the name may differ.
Runs are also interrupted (SIGKILL, SIGTERM) and resumed, runs that the old code began are finished by the new code, and
finished runs of the old code are evaluated by the new code. Nothing here imports the package: only its command line and
the files that it writes are used. The exit code is 1 if anything differs, is missing or has failed.

--new names another checkout than the one that holds this file; --keep keeps the runs of both sides; --cache keeps what
the old code did, so that the next call with the same commands on the same machine runs the new code only.
"""

import argparse
import hashlib
import io
import json
import math
import os
import platform
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
OLD = "42ebd4d"
FORMAT = 1
"""Number of the format of what --cache stores; changed with the digests below."""
AT_ONCE = 2
"""Commands that run at the same time."""
LIMIT = 300
"""Seconds after which a command is killed."""
SHOWN = 10
"""Differences of one file that are printed; the others are counted."""


@dataclass(frozen=True)
class Group:
    """One command with several runs. `{images}`, `{photos}`, `{weights}` and `{dense}` stand for paths."""

    name: str
    arguments: str
    may_refuse: bool = False
    """True where both sides may refuse the command, on a machine that lacks what it needs."""


COMMON = "tracker=none train.threads=1"
DIGITS = "data=digits data.fraction=0.3 model=conv2 model.width=0.25"
FEW = "data=synthetic data.fraction=0.3"
TRAINED = f"{DIGITS} init=kaiming_normal train.epochs=5 train.batch_size=16 prune_rate=0.7"
WARMUP = f"{TRAINED} method=warmup_then_prune method.weight_epochs=2"
FOLDER = (
    "data=tiny_imagenet data.root={images} data.workers=2 train.epochs=6 train.batch_size=7 "
    "model=conv2 model.width=0.125"
)
DENSE = Group("dense", f"{DIGITS} init=kaiming_normal init.mode=fan_out train.epochs=4 method=dense,last_layer")
PRETRAINED = Group("pretrained_run", f"{DIGITS} train.epochs=3 pretrained={{dense}} method=edge_popup,random,dense")

# The slowest come first, so that the two that run at a time end together.
GROUPS = [
    Group(
        "vit",
        "data=tiny_imagenet data.root={images} data.size=32 data.workers=0 data.validation=0 train.epochs=1 "
        "train.batch_size=12 model=torchvision model.name=vit_b_16",
    ),
    Group(
        "methods",
        f"{TRAINED} method=edge_popup,random,random_trained,dnw pruning=layerwise,global pruning.ramp_epochs=0,2",
    ),
    Group("warmup", f"{WARMUP} pruning=layerwise,global pruning.ramp_epochs=0,2"),
    Group(
        "sampled",
        f"{DIGITS} train.epochs=3 method=sampled method.evaluation=sample,threshold,mean method.penalty=1e-4 "
        "method.score_init=uniform,constant method.score_constant=0.5",
    ),
    Group(
        "residual",
        f"{FEW} train.epochs=2 model=cifar_resnet18 model.width=0.125 model.norm=batch_fixed,batch "
        "train.norm_batches=0,3 method=edge_popup,dense,random",
    ),
    Group(
        "bottleneck",
        f"{FEW} train.epochs=1 data.size=32 model=cifar_resnet50,resnet18,wide_resnet50_2 model.width=0.0625 "
        "pruning=global",
    ),
    Group(
        "torchvision",
        "data=tiny_imagenet data.root={images} data.size=32 data.workers=0 train.epochs=2 train.batch_size=12 "
        "model=torchvision model.name=resnet18,mobilenet_v3_small",
    ),
    Group(
        "image_folder",
        f"{FOLDER} data.size=16,24",
    ),
    Group(
        "photographs",
        "data=imagenet data.root={photos} data.size=24 data.resize=28 data.workers=2 train.epochs=2 "
        "train.batch_size=8 model=cifar_resnet18 model.width=0.125 train.norm_batches=2",
    ),
    Group(
        "scales",
        f"{FEW} train.epochs=3 model=fc model.width=0.25 prune_rate=0.3 "
        "init=signed_constant,unsigned_constant,kaiming_normal init.scale=none,density,reference",
    ),
    Group(
        "inits",  # and a layer that is large enough to have its effective weight made again in the backward pass
        f"{FEW} train.epochs=2 model=conv2 init=kaiming_uniform,xavier_normal,standard method=edge_popup,sampled,dnw",
    ),
    Group(
        "model_options",
        f"{FEW} train.epochs=3 model=conv4 model.width=0.125 model.temperature=2 pruning=global "
        "model.first_layer=masked,dense model.last_layer=masked,dense init=xavier_constant",
    ),
    Group(
        "bf16",
        f"{DIGITS} train.epochs=3 train.precision=bf16 train.channels_last=false,true method=edge_popup,dense",
        may_refuse=True,
    ),
    Group("channels_last", f"{DIGITS} train.epochs=3 train.channels_last=true method=edge_popup,sampled,dense"),
    Group(
        "two_devices",
        f"{FEW} train.epochs=2 train.devices=2 model=conv2,cifar_resnet18 model.width=0.125",
        may_refuse=True,
    ),
    Group("pretrained_file", f"{DIGITS} train.epochs=3 pretrained={{weights}} method=edge_popup,random"),
    Group(
        "augmentation",
        f"{DIGITS} train.epochs=3 data.crop=0,1 data.flip=true data.pad=0,1 checkpoint.every=1 seeds.weights=3",
    ),
    Group(
        "one_batch",
        f"{DIGITS.replace(' data.fraction=0.3', '')} data.one_batch=true data.validation=0,0.1 train.epochs=6 seed=1",
    ),
    Group(
        "adam",
        f"{DIGITS} train.epochs=4 train.optimizer=adam train.lr=0.01 train.schedule=multistep "
        "'train.milestones=[1,3]' train.gamma=0.2 train.label_smoothing=0,0.1 method=edge_popup,dense",
    ),
    Group(
        "schedules",
        f"{FEW} train.epochs=3 model=cifar_resnet18 model.width=0.125 model.norm=batch train.norm_decay=false,true "
        "train.schedule=constant train.warmup_epochs=1 train.nesterov=true train.weight_decay=0.01 method=dense",
    ),
]


@dataclass(frozen=True)
class Interruption:
    """One run that is interrupted and resumed; a run with the same settings is in the group `of`, undisturbed."""

    name: str
    of: str
    arguments: str
    signal: signal.Signals
    rows: int
    """Number of rows in metrics.jsonl at which the signal is sent."""
    by_new: str = ""
    """Arguments with which the new code finishes what the old code began."""

    @property
    def command(self) -> str:
        return f"{COMMON} checkpoint.minutes=0 {self.arguments}"


INTERRUPTIONS = [
    Interruption("edge_popup", "methods", f"{TRAINED} pruning.ramp_epochs=2", signal.SIGKILL, 3),
    Interruption("warmup_then_prune", "warmup", f"{WARMUP} pruning.ramp_epochs=2", signal.SIGKILL, 4),
    Interruption("stopped", "methods", f"{TRAINED} method=dnw pruning=global", signal.SIGTERM, 3),
    Interruption("image_folder", "image_folder", f"{FOLDER} data.size=16", signal.SIGKILL, 2, "data.trust_names=true"),
]
CROSSED = [each for each in INTERRUPTIONS if each.signal is signal.SIGKILL]
"""Interruptions that the old code begins and the new code finishes."""
EVALUATED = {"methods": "edge_popup", "sampled": "sampled", "dense": "dense"}
"""Groups and methods: the first such run of the old code is evaluated by the new code."""

Digest = dict[str, dict[str, str]]
"""Content of a run folder: for each file, its values (a tensor's digest, or what repr says) by their keys."""


@dataclass
class Done:
    """End of a command, and the digests of the runs in its output folder."""

    code: int
    said: str
    """Last line that it printed."""
    runs: dict[str, Digest]


@dataclass
class Side:
    """The code in `checkout`, executed in the folder `work`; `shared` holds what the old code leaves to the new."""

    label: str
    checkout: Path
    work: Path
    shared: Path
    paths: dict[str, str]
    groups: dict[str, Done] = field(default_factory=dict)
    resumed: dict[str, Done] = field(default_factory=dict)

    def launch(self, arguments: str, out: Path) -> "subprocess.Popen[bytes]":
        """Start launch.py; what it prints goes to <out>.txt."""
        command = [sys.executable, str(self.checkout / "launch.py"), *shlex.split(arguments.format(**self.paths))]
        with Path(f"{out}.txt").open("wb") as said:
            return start([*command, f"out={out}"], self.checkout, self.work, said)

    def run(self, arguments: str, out: Path) -> int:
        """Run launch.py to its end; return its exit code."""
        return wait(self.launch(arguments, out))

    def done(self, code: int, out: Path) -> Done:
        return Done(code, last_line(Path(f"{out}.txt")), digests(out))


# Running commands


RUNNING: "set[subprocess.Popen[bytes]]" = set()
STOPPED = threading.Event()


def start(command: list[str], checkout: Path, cwd: Path, said: Any) -> "subprocess.Popen[bytes]":
    """Start a command that sees the package of `checkout` only, and no GPU."""
    if STOPPED.is_set():
        raise RuntimeError("stopped")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HIDDEN_SUBNET", "SLURM"))}
    environment |= {"FINGERPRINT_CHECKOUT": str(checkout), "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(cwd / "site"), str(checkout)])
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
    )
    RUNNING.add(process)
    return process


def wait(process: "subprocess.Popen[bytes]") -> int:
    """Return the exit code; a command that takes too long is killed."""
    try:
        return process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        kill(process)
        return process.wait()
    finally:
        RUNNING.discard(process)


def kill(process: "subprocess.Popen[bytes]", number: int = signal.SIGKILL) -> None:
    """Send a signal to a command and the processes of its session."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


SITE = """# Written by tests/fingerprint/runs.py: an editable install must not add the package of another checkout.
import os, sys
checkout = os.environ["FINGERPRINT_CHECKOUT"]
sys.path[:] = [path for path in sys.path if path == checkout or not os.path.isdir(os.path.join(path, "hidden_subnet"))]
"""


def make_side(label: str, checkout: Path, work: Path, shared: Path, paths: dict[str, str]) -> Side:
    """Make the folder of a side, and check that its commands import the package of its checkout."""
    side = Side(label, checkout, work / label, shared, paths)
    shutil.rmtree(side.work, ignore_errors=True)
    (side.work / "site").mkdir(parents=True)
    (side.work / "site" / "sitecustomize.py").write_text(SITE)
    said = side.work / "imported.txt"
    with said.open("wb") as file:
        command = [sys.executable, "-c", "import hidden_subnet; print(hidden_subnet.__file__)"]
        code = wait(start(command, checkout, side.work, file))
    found = Path(last_line(said))
    if code or not found.is_relative_to(checkout):
        sys.exit(f"error: {label}: the package comes from {found}, and not from {checkout}")
    return side


def last_line(path: Path) -> str:
    return ([line for line in path.read_text(errors="replace").splitlines() if line.strip()] or [""])[-1]


# What a run folder holds


def digests(out: Path) -> dict[str, Digest]:
    """Digest all run folders in `out`."""
    return {path.parent.name: digest_run(path.parent) for path in sorted(out.glob("[!.]*/config.yaml"))}


def digest_run(folder: Path) -> Digest:
    """Digest the checkpoints, the metrics and the result of a run; a file that is not there is left out."""
    found: Digest = {}
    names = [f"checkpoints/{name}.ckpt" for name in ("first", "best", "last", "epoch_*")]
    for path in [*(path for name in names for path in sorted(folder.glob(name))), folder / "metrics.jsonl"]:
        if path.exists():
            found[path.name] = read(path, read_checkpoint if path.suffix == ".ckpt" else read_metrics)
    if (folder / "result.json").exists():
        found["result.json"] = read(folder / "result.json", read_result)
    return found


def read(path: Path, reader: Callable[[Path], Any]) -> dict[str, str]:
    try:
        return dict(flat(reader(path)))
    except Exception as error:  # a damaged file is a difference like another
        return {"": f"cannot be read: {type(error).__name__}: {error}"[:300]}


def read_checkpoint(path: Path) -> Any:
    """Read a checkpoint of 42ebd4d (a line, a digest, then what torch.save wrote) or a plain one."""
    content = path.read_bytes()
    line = b"hidden_subnet 1\n"
    if content.startswith(line):
        head = len(line) + 32
        if hashlib.sha256(content[head:]).digest() != content[len(line) : head]:
            raise ValueError("its digest does not fit")
        content = content[head:]
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: value for name, value in state.items() if name != "sha256"}


def read_metrics(path: Path) -> Any:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {f"row {number}": without(row, "seconds", "images_per_second") for number, row in enumerate(rows)}


def read_result(path: Path) -> Any:
    result = without(json.loads(path.read_text()), "seconds", "environment")
    if "pretrained" in result:
        result["pretrained"] = without(result["pretrained"], "file")
    return result


def without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, text) for each tensor, number and string in nested dicts and lists."""
    items: Any = (
        enumerate(value) if isinstance(value, list | tuple) else value.items() if isinstance(value, dict) else None
    )
    if isinstance(value, torch.Tensor):
        content = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        yield path, f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}"
    elif items is None or not value:
        yield path, repr(value)
    else:
        for key, item in items:
            yield from flat(item, f"{path}/{key}" if path else str(key))


KNOWN = ("epoch", "trained", "validation", "train")
"""Keys of a checkpoint; the new code may add others to them."""


def differences(old: Digest, new: Digest, ignored: tuple[str, ...] = ()) -> list[str]:
    """Compare two runs: a line for each file and key that differs. `ignored` keys are those of result.json."""
    lines = []
    for file in [*old, *(file for file in new if file not in old)]:
        if file not in old or file not in new:
            lines.append(f"{file}: only the {'old' if file in old else 'new'} code writes it")
            continue
        before, after = old[file], new[file]
        groups = {key.split("/")[0] for key in before} | set(KNOWN)
        keys = [*before, *(key for key in after if key not in before)]
        if file.endswith(".ckpt"):
            keys = [key for key in keys if key in before or key.split("/")[0] in groups]
        differing = [key for key in keys if before.get(key) != after.get(key) and key not in ignored]
        for key in differing[:SHOWN]:
            lines.append(f"{file}: {key}: {before.get(key, 'missing')[:90]} != {after.get(key, 'missing')[:90]}")
        if len(differing) > SHOWN:
            lines.append(f"{file}: and {len(differing) - SHOWN} other keys")
    return lines


# What differs on purpose


CHANCE = {"'digits'": (37, 360), "'synthetic'": (13, 128)}
"""Test images of the largest class, and all of them: chance is at least that share now. Other data are balanced."""


ACCOUNTING = ("trained_parameters", "bits", "dense_flops", "sparse_flops")
"""Values of a result that the old code lacks."""


def same_run(old: Digest, runs: dict[str, Digest]) -> str | None:
    """Return the name of an old run among those of the new code: it has another schema where its result has changed."""
    wanted = settings_in(old) | {"projection/schema": "2" if is_mean(old) else "1"}
    return next((name for name, digest in runs.items() if settings_in(digest) == wanted), None)


def settings_in(run: Digest) -> dict[str, str]:
    return {key: value for key, value in run.get("result.json", {}).items() if key.startswith("projection/")}


def is_mean(run: Digest) -> bool:
    """Return whether it is a run of method.evaluation=mean, of which a density of 1 was recorded."""
    return settings_in(run).get("projection/method/evaluation") == "'mean'"


def as_meant(old: Digest | None, new: Digest | None) -> Digest | None:
    """Return an old run with the differences to the new one that are meant; all others remain."""
    if old is None or new is None or "result.json" not in old or "result.json" not in new:
        return old
    meant = {file: dict(values) for file, values in old.items()}
    result, settings = meant["result.json"], settings_in(old)
    result |= {key: value for key, value in new["result.json"].items() if key in ACCOUNTING}
    if settings["projection/data/name"] in CHANCE:
        largest, images = CHANCE[settings["projection/data/name"]]
        chance = largest / images
        result["chance"] = repr(chance)
        if result["last/epoch"] != "0":  # it was trained, and so may have collapsed
            bound = chance + 3 * math.sqrt(chance * (1 - chance) / images)
            result["collapsed"] = repr(float(result["last/test/top1"]) <= bound)
    if "projection/pruning/ramp_epochs" in settings or "projection/method/weight_epochs" in settings:
        # The untrained subnetwork is measured at prune_rate too, if the new code began the run.
        result |= {
            key: value for key, value in new["result.json"].items() if key.startswith("untrained/at_prune_rate/")
        }
    if is_mean(old):
        for file in ("result.json", "metrics.jsonl"):
            for key in meant[file]:
                if key in ("name", "projection/schema", "kept") or re.search(r"(^|/)density|^layers/\d+/kept$", key):
                    meant[file][key] = new[file].get(key, "missing")
    return meant


# What the runs read


def make_inputs(folder: Path) -> dict[str, str]:
    """Write image folders and a file of weights, always the same; return their paths by the names in GROUPS."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, suffix, side in (("images", "png", 24), ("photos", "jpeg", 40)):
        source = random.Random(0)
        for split, count in (("train", 8), ("val", 4)):
            for label in ("n01", "n02", "n03"):
                inner = folder / name / split / label
                inner.mkdir(parents=True)
                for number in range(count):
                    small = Image.frombytes("RGB", (3, 3), source.randbytes(27))
                    small.resize((side + 4, side), Image.Resampling.BILINEAR).save(inner / f"{label}_{number}.{suffix}")
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv1": (16, 1, 3, 3), "conv2": (16, 16, 3, 3), "fc1": (64, 256), "fc2": (64, 64), "fc3": (10, 64)}
    weights = {f"{name}.weight": 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save(weights, folder / "weights.pt")
    return {
        "images": str(folder / "images"),
        "photos": str(folder / "photos"),
        "weights": str(folder / "weights.pt"),
    }


# The old and the new side


def say(side: Side, what: str, started: float) -> None:
    print(f"{side.label} {what}: {time.monotonic() - started:.1f} s", flush=True)


def run_group(side: Side, group: Group, keep: bool) -> None:
    started, out = time.monotonic(), side.work / group.name
    code = side.run(f"-m {COMMON} hydra.launcher.workers=1 {group.arguments}", out)
    done = side.groups[group.name] = side.done(code, out)
    if group.name in EVALUATED and side.label == "old":
        leave_to_the_new(side, out, EVALUATED[group.name])
    if group.name == "vit" and not keep:
        shutil.rmtree(out)  # 700 MB
    say(side, f"{group.name}, {len(done.runs)} runs", started)


def leave_to_the_new(side: Side, out: Path, method: str) -> None:
    """Copy the first run of `method` to where the new code evaluates it."""
    for folder in sorted(out.glob(f"*-{method}-*"))[:1]:
        shutil.copytree(folder, side.shared / "runs" / method / folder.name)


def run_dense(side: Side, keep: bool) -> None:
    """Run the dense runs, and then those that begin from the weights of one."""
    run_group(side, DENSE, keep)
    dense = next((side.shared / "runs" / "dense").glob("*"), None)
    mine = next((side.work / DENSE.name).glob("*-dense-*"), None)
    for name, folder in ((PRETRAINED.name, dense), (OWN, mine if side.label == "new" else None)):
        if folder is not None:
            run_group(side, Group(name, PRETRAINED.arguments.format(dense=folder)), keep)


OWN = "pretrained_own"
"""PRETRAINED from the dense run of the new code: the same runs but for the digest of the file, and so their names."""
OWN_IGNORED = ("name", "projection/pretrained", "pretrained/sha256")


def run_interrupted(side: Side, each: Interruption) -> None:
    """Interrupt a run and finish it by the same command."""
    started, out = time.monotonic(), side.work / f"interrupted_{each.name}"
    if interrupt(side, each, out):
        if side.label == "old":
            shutil.copytree(out, side.shared / "begun" / each.name)
        side.resumed[each.name] = finish(side, each, out)
    else:
        side.resumed[each.name] = Done(1, f"could not be interrupted: {last_line(Path(f'{out}.txt'))}", {})
    say(side, f"{each.name}, interrupted and resumed", started)


def finish(side: Side, each: Interruption, out: Path, more: str = "") -> Done:
    """Finish the run that was interrupted in `out`; one that only began again has failed, for all its bits."""
    before = rows_in(out)[: each.rows - 1]
    done = side.done(side.run(f"{each.command} {more}", out), out)
    if done.code == 0 and rows_in(out)[: len(before)] != before:  # their seconds tell
        return Done(1, "did not go on from its checkpoint, but began again", done.runs)
    return done


def interrupt(side: Side, each: Interruption, out: Path) -> bool:
    """Start a run and send it a signal after some epochs; return whether it ended before its end, with rows."""
    for _ in range(3):
        shutil.rmtree(out, ignore_errors=True)
        process = side.launch(each.command, out)
        while process.poll() is None and len(rows_in(out)) < each.rows:
            time.sleep(0.002)
        kill(process, each.signal)
        wait(process)
        if rows_in(out) and not list(out.glob("*/result.json")):
            return True
    return False


def rows_in(out: Path) -> list[str]:
    """Return the lines of metrics.jsonl of the one run in `out`, from its newest attempt while it is not done."""
    # os.walk passes over a folder that the run removes meanwhile; Path.glob raises there (Python before 3.13).
    paths = [Path(folder, "metrics.jsonl") for folder, _, names in os.walk(out) if "metrics.jsonl" in names]
    try:
        return max(paths, key=lambda path: path.stat().st_mtime).read_text().split("\n")[:-1] if paths else []
    except FileNotFoundError:  # the attempt became the run: the next look finds it
        return []


def finish_begun(side: Side, each: Interruption) -> None:
    """Finish a run that the old code began."""
    started, out = time.monotonic(), side.work / f"begun_{each.name}"
    if not (side.shared / "begun" / each.name).is_dir():
        side.resumed[f"begun {each.name}"] = Done(1, "the old code has not begun it", {})
        return
    shutil.copytree(side.shared / "begun" / each.name, out)
    side.resumed[f"begun {each.name}"] = finish(side, each, out, each.by_new)
    say(side, f"{each.name}, begun by the old code", started)


def evaluate(side: Side, method: str) -> None:
    """Evaluate a finished run of the old code."""
    started, out = time.monotonic(), side.shared / "runs" / method
    for folder in out.glob("*"):
        said = side.work / f"evaluate_{method}.txt"
        with said.open("wb") as file:
            command = [sys.executable, str(side.checkout / "launch.py"), f"evaluate={folder}", f"out={out}"]
            code = wait(start(command, side.checkout, side.work, file))
        side.resumed[f"evaluate {method}"] = Done(code, last_line(said), {})
    say(side, f"evaluate {method}, a run of the old code", started)


def run_side(side: Side, keep: bool) -> float:
    """Run all commands of a side, two at a time; return the seconds."""
    started = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: list[Future[None]] = [pool.submit(run_group, side, GROUPS[0], keep)]
        waiting.append(pool.submit(run_dense, side, keep))
        waiting += [pool.submit(run_group, side, group, keep) for group in GROUPS[1:]]
        waiting += [pool.submit(run_interrupted, side, each) for each in INTERRUPTIONS]
        if side.label == "new":
            waiting += [pool.submit(finish_begun, side, each) for each in CROSSED]
            waiting += [pool.submit(evaluate, side, method) for method in EVALUATED.values()]
        try:
            for each in waiting:
                each.result()
        except BaseException:
            STOPPED.set()
            for process in list(RUNNING):
                kill(process)
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return time.monotonic() - started


def compare(old: Side, new: Side) -> dict[str, list[str]]:
    """Return the differences of each run and check; no lines where it is equal."""
    found: dict[str, list[str]] = {}
    for group in [*GROUPS, DENSE, PRETRAINED]:
        before, after = old.groups.get(group.name, MISSING), new.groups.get(group.name, MISSING)
        if group.may_refuse and before.code and after.code and not before.runs and not after.runs:
            print(f"{group.name}: both refuse it ({before.said[:100]})")
            continue
        if lines := failures(before, after):
            found[group.name] = lines
        renamed = "{images}" in group.arguments or "{photos}" in group.arguments
        old_runs, new_runs = (by_settings(done.runs) if renamed else done.runs for done in (before, after))
        pairs = {name: name if name in new_runs else same_run(run, new_runs) or name for name, run in old_runs.items()}
        for name in [*old_runs, *(name for name in new_runs if name not in pairs.values())]:
            one, other = old_runs.get(name), new_runs.get(pairs.get(name, name))
            found[f"{group.name} {name}"] = compare_runs(as_meant(one, other), other, BY_CONTENT if renamed else ())
    # The same runs from a file of the new code, and so under other names.
    own = {name[:-13]: digest for name, digest in new.groups.get(OWN, MISSING).runs.items()}
    for name, digest in old.groups.get(PRETRAINED.name, MISSING).runs.items():
        other = own.get(name[:-13])
        found[f"{OWN} {name[:-13]}"] = compare_runs(as_meant(digest, other), other, OWN_IGNORED)
    for each in INTERRUPTIONS:
        for side in (old, new):
            whole, done = side.groups.get(each.of, MISSING).runs, side.resumed.get(each.name, MISSING)
            found[f"{each.name} resumed by {side.label}"] = compare_resumed(whole, done)
    for each in CROSSED:
        done = new.resumed.get(f"begun {each.name}", MISSING)
        whole = old.groups.get(each.of, MISSING).runs
        meant = {name: as_meant(digest, done.runs.get(name)) or {} for name, digest in whole.items()}
        found[f"{each.name} begun by old, finished by new"] = compare_resumed(meant, done)
    for method in EVALUATED.values():
        done = new.resumed.get(f"evaluate {method}", MISSING)
        found[f"{method} of old evaluated by new"] = [f"exit code {done.code}: {done.said}"] if done.code else []
    return found


BY_CONTENT = ("name", "projection/data/found/digest")
"""Keys of result.json that differ in runs on image folders: the old code's digest is that of the names."""


def by_settings(runs: dict[str, Digest]) -> dict[str, Digest]:
    """Rename runs by their settings without BY_CONTENT; a run without a result keeps its name."""
    renamed = {}
    for name, digest in runs.items():
        result = digest.get("result.json", {})
        settings = [f"{key}={value}" for key, value in sorted(result.items()) if key.startswith("projection/")]
        kept = " ".join(each for each in settings if not each.startswith(BY_CONTENT))
        renamed[f"{name[:-13]} {hashlib.sha256(kept.encode()).hexdigest()[:12]}" if result else name] = digest
    return renamed


MISSING = Done(1, "nothing was run", {})


def failures(before: Done, after: Done) -> list[str]:
    sides = (("old", before), ("new", after))
    return [f"exit code {done.code} of the {label} code: {done.said}" for label, done in sides if done.code]


def compare_runs(old: Digest | None, new: Digest | None, ignored: tuple[str, ...] = ()) -> list[str]:
    if old is None or new is None:
        return [f"missing in the {'old' if old is None else 'new'} code's runs"]
    unfinished = [label for label, digest in (("old", old), ("new", new)) if "result.json" not in digest]
    return [f"not finished by the {label} code" for label in unfinished] + differences(old, new, ignored)


def compare_resumed(whole: dict[str, Digest], done: Done) -> list[str]:
    """Compare a resumed run with the undisturbed one of the same name."""
    if done.code or len(done.runs) != 1:
        return [f"exit code {done.code}, {len(done.runs)} runs: {done.said}"]
    ((name, digest),) = done.runs.items()
    return compare_runs(whole.get(name), digest)


# The cache and the command


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def cache_key(commit: str) -> str:
    """Return the name under which the old side's results are stored: commit, versions, processor and commands."""
    commands = [COMMON, *map(repr, [*GROUPS, DENSE, PRETRAINED, *INTERRUPTIONS])]
    versions = [torch.__version__, torchvision.__version__, PIL.__version__, platform.python_version()]
    what = [FORMAT, commands, versions, torch.backends.cpu.get_cpu_capability(), platform.machine(), EVALUATED]
    return f"{commit[:12]}-{hashlib.sha256(json.dumps([commit, what]).encode()).hexdigest()[:12]}"


def store(side: Side, cached: Path) -> None:
    """Keep what the old side found, and what it leaves to the new side."""
    temporary = cached.with_name(f"{cached.name}.{os.getpid()}.tmp")
    shutil.copytree(side.shared, temporary)
    results = {
        name: {key: asdict(done) for key, done in held.items()}
        for name, held in (("groups", side.groups), ("resumed", side.resumed))
    }
    (temporary / "digests.json").write_text(json.dumps(results))
    if not cached.exists():
        temporary.rename(cached)


def restore(side: Side, cached: Path) -> None:
    results = json.loads((cached / "digests.json").read_text())
    side.groups = {key: Done(**done) for key, done in results["groups"].items()}
    side.resumed = {key: Done(**done) for key, done in results["resumed"].items()}


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check out a commit in a temporary git worktree, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="fingerprint-") as folder:
        checkout = Path(folder).resolve() / "code"
        git("worktree", "add", "--quiet", "--detach", str(checkout), commit)
        try:
            yield checkout
        finally:
            git("worktree", "remove", "--force", str(checkout))


def run_both(commit: str, checkout: Path, work: Path, cache: Path | None, keep: bool) -> tuple[Side, Side]:
    """Run the old code, or take its results from the cache, and then the new code."""
    paths = make_inputs(work / "inputs")
    cached = cache / cache_key(commit) if cache else None
    if cached and (cached / "digests.json").exists():
        old = Side("old", ROOT, work / "old", cached, paths)
        restore(old, cached)
        print(f"old: {commit[:12]}, from {cached}")
    else:
        shared = work / "left_by_old"
        shutil.rmtree(shared, ignore_errors=True)
        with checked_out(commit) as code:
            old = make_side("old", code, work, shared, paths)
            print(f"old: {commit[:12]}, {run_side(old, keep):.0f} s", flush=True)
        optional = [group.name for group in GROUPS if group.may_refuse]
        ended = [done for name, done in [*old.groups.items(), *old.resumed.items()] if name not in optional]
        if cached and not any(done.code for done in ended):
            store(old, cached)
    new = make_side("new", checkout, work, old.shared, paths)
    print(f"new: {checkout}, {run_side(new, keep):.0f} s", flush=True)
    return old, new


def main() -> int:
    """Run both sides and print what differs; return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--old", default=OLD, metavar="COMMIT", help=f"the commit to compare with (default: {OLD})")
    parser.add_argument("--new", default=ROOT, type=Path, metavar="DIR", help="another checkout than this one")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the runs of both sides there")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the results of the old code there")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    if not (asked.new / "launch.py").is_file():
        parser.error(f"{asked.new} has no launch.py")
    commit, checkout = git("rev-parse", f"{asked.old}^{{commit}}"), asked.new.resolve()
    cache = asked.cache and asked.cache.resolve()
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
        old, new = run_both(commit, checkout, asked.keep.resolve(), cache, keep=True)
    else:
        with tempfile.TemporaryDirectory(prefix="fingerprint-") as work:
            old, new = run_both(commit, checkout, Path(work).resolve(), cache, keep=False)
    found = compare(old, new)
    for name, lines in found.items():
        for line in lines:
            print(f"{name}: {line}")
    differing = sum(bool(lines) for lines in found.values())
    print(f"{differing} of {len(found)} differ" if differing else f"{len(found)} runs equal")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
