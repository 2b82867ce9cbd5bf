"""Fingerprint of run ids: one sha256 over the folder names of 100,000 random runs, and the golden names of the tests.

`python tests/fingerprint/ids.py` prints the digest, and exits with 1 if it differs from DIGEST or if a golden name has
changed. Runs whose result has changed since have another id: the digest holds the names that they would have with their
earlier schema, so that nothing else of their ids may change, and `renamed` says which runs they are. The values of all
settings stand here as literals, so that a change of the package cannot change what is asked.
"""

import ast
import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COUNT = 100_000
CHUNK = 5_000

DIGEST = "1791d566a2891483f3c6433ff9e0e1cf7a53bc734af428c55987f8f22a09945d"
"""Digest computed on commit 42ebd4d."""

Settings = dict[str, Any]

MODELS = (
    "fc", "conv2", "conv4", "conv6", "conv8",
    "cifar_resnet18", "cifar_resnet34", "cifar_resnet50", "cifar_resnet101", "cifar_resnet152",
    "resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
TORCHVISION = ("resnet18", "vit_b_16", "swin_t", "mobilenet_v3_small", "convnext_tiny", "efficientnet_v2_s")
INITS = (
    "signed_constant", "unsigned_constant", "kaiming_normal", "kaiming_uniform",
    "xavier_normal", "xavier_constant", "standard",
)  # fmt: skip
DATA = (
    "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "synthetic", "bigcifar10", "imagenet", "tiny_imagenet",
)  # fmt: skip
FOLDERS = ("imagenet", "tiny_imagenet")
PRUNINGS = ("layerwise", "global")
STREAMS = ("weights", "scores", "data", "split")
METHODS: dict[str, dict[str, tuple[Any, ...]]] = {
    "edge_popup": {},
    "sampled": {
        "evaluation": ("sample", "threshold", "mean"),
        "score_init": ("uniform", "constant"),
        "score_constant": (0.0, 1.0, -0.5),
        "penalty": (0.0, 1e-8, 1e-5),
    },
    "dense": {},
    "random": {},
    "random_trained": {},
    "dnw": {},
    "warmup_then_prune": {"weight_epochs": (3, 6, 10)},
    "last_layer": {},
}
"""Names of the methods, each with its own options and their values."""

# The values of the other settings; a value that is written twice is drawn twice as often.
MODEL: dict[str, tuple[Any, ...]] = {
    "width": (1.0, 1.0, 0.5, 2.0, 0.125, 1.1),
    "norm": ("batch_fixed", "batch"),
    "first_layer": ("masked", "dense"),
    "last_layer": ("masked", "dense"),
    "temperature": (1.0, 1.0, 2.0, 0.5, 1e-7),
}
INIT: dict[str, tuple[Any, ...]] = {"mode": ("fan_in", "fan_out"), "scale": ("none", "density", "reference")}
IMAGES: dict[str, tuple[Any, ...]] = {
    "validation": (0.1, 0.1, 0.0, 0.2, 0.3),
    "crop": (0, 2, 4),
    "flip": (False, True),
    "resized_crop": (False, False, False, True),
    "pad": (0, 0, 2),
    "size": (0, 0, 64, 128),
    "resize": (0, 0, 64, 72),
    "fraction": (1.0, 1.0, 0.1, 0.3),
    "one_batch": (False, False, False, True),
}
FOUND = (
    {"classes": 10, "train": 9469, "test": 3925, "digest": "0123456789abcdef"},
    {"classes": 10, "train": 9469, "test": 3925, "digest": "fedcba9876543210"},
    {"classes": 200, "train": 100_000, "test": 10_000, "digest": "00112233445566ff"},
)
PRUNING: dict[str, tuple[Any, ...]] = {
    "floor": (0.1, 0.1, 0.0, 0.3, 1.0),
    "ramp_epochs": (0, 0, 3, 5),
    "start_rate": (0.0, 0.0, 0.1, 0.3),
}
TRAIN: dict[str, tuple[Any, ...]] = {
    "epochs": (1, 15, 100),
    "batch_size": (32, 64, 128),
    "lr": (0.1, 0.01, 0.03, 1.0, 200.0),
    "optimizer": ("sgd", "adam"),
    "momentum": (0.9, 0.0, 0.8),
    "nesterov": (False, True),
    "weight_decay": (1e-4, 0.0, 5e-4),
    "norm_decay": (True, False),
    "schedule": ("cosine", "constant", "multistep"),
    "warmup_epochs": (0, 0, 5),
    "milestones": ([], [3], [3, 7]),
    "gamma": (0.1, 0.5, 1.0),
    "label_smoothing": (0.0, 0.1),
    "norm_batches": (0, 0, 10),
    "precision": ("fp32", "bf16"),
    "channels_last": (False, True),
    "compile": (False, False, False, True),
    "devices": (1, 1, 2, 4),
    "sync_norm": (False, False, False, True),
}
SEEDS = (None, None, 0, 1, 2, 3, 4)
RATES = (0.5, 0.1, 0.3, 0.7, 0.9, 0.995, 0.0)
WEIGHTS = (None, None, None, "0" * 64, "0123456789abcdef" * 4)


def spelled(source: random.Random, value: Any) -> Any:
    """Write the same number in another way now and then: 1 for 1.0, -0.0 for 0.0, 0.30000000000000004 for 0.3."""
    if type(value) is not float or source.random() < 0.6:
        return value
    if value == 0:
        return source.choice((0, -0.0))
    if value == int(value) and source.random() < 0.7:
        return int(value)
    return value * (1 + source.choice((-1, 1)) * 2**-52)


def drawn(source: random.Random, table: dict[str, tuple[Any, ...]]) -> Settings:
    """Draw a value for each name of the table; a tenth of the names is left out, which means the default."""
    return {key: spelled(source, source.choice(values)) for key, values in table.items() if source.random() < 0.9}


def random_number(source: random.Random, value: Any, low: float, high: float) -> Any:
    """Return `value`, or with a probability of a third any number between `low` and `high`."""
    return source.uniform(low, high) if source.random() < 1 / 3 else value


def random_settings(source: random.Random) -> Settings:
    """Draw what the config.yaml of a run holds, without the tracker and the settings that are no part of an id."""
    library = source.choice(("own", "own", "own", "torchvision"))
    model = {"name": source.choice(MODELS if library == "own" else TORCHVISION), **drawn(source, MODEL)}
    if library == "torchvision" or source.random() < 0.5:
        model["library"] = library
    if "width" in model:
        model["width"] = random_number(source, model["width"], 0.1, 2)
    data = {"name": source.choice(DATA), **drawn(source, IMAGES)}
    if data["name"] in FOLDERS:
        data["found"] = dict(source.choice(FOUND))
    method = source.choice(tuple(METHODS))
    train = drawn(source, TRAIN)
    if "lr" in train:
        train["lr"] = random_number(source, train["lr"], 0.001, 1)
    settings: Settings = {
        "model": model,
        "init": {"name": source.choice(INITS), **drawn(source, INIT)},
        "data": data,
        "pruning": {"name": source.choice(PRUNINGS), **drawn(source, PRUNING)},
        "method": {"name": method, **drawn(source, METHODS[method])},
        "train": train,
        "seeds": {stream: source.choice(SEEDS) for stream in STREAMS},
        "pretrained_sha256": source.choice(WEIGHTS),
        "prune_rate": random_number(source, spelled(source, source.choice(RATES)), 0, 1),
        "seed": source.choice((0, 1, 2, 12345)),
    }
    if source.random() < 0.1:
        del settings["seeds"]
    return settings


def all_settings(count: int) -> Iterator[Settings]:
    """Draw `count` runs, always the same ones."""
    source = random.Random(0)
    return (random_settings(source) for _ in range(count))


def renamed(settings: Settings) -> bool:
    """Say whether the result of a run is another one than on 42ebd4d, as CHANGELOG.md lists it, and so its id."""
    model, method, name = settings["model"], settings["method"], settings["method"]["name"]
    dense = "dense" in (model.get("first_layer"), model.get("last_layer"))
    unmasked = dense or model.get("norm") == "batch" or model.get("library") == "torchvision"
    removes = name not in ("dense", "last_layer", "sampled") and float(f"{settings['prune_rate']:.12g}") > 0
    return (
        (name in ("dnw", "warmup_then_prune") and unmasked)
        or (settings["init"].get("scale") == "density" and removes and dense)
        or (name == "sampled" and method.get("evaluation") == "mean")
    )


@cache
def namer() -> Callable[[Settings], str]:
    """Return the function that names the folder of a run: from the new layout of the package, or else the old one.

    The name is that of schema 1, with 6 digits of its numbers. Raises AssertionError where the run has another id, but
    not the same result, or the reverse.
    """
    try:
        from hidden_subnet.config.convert import from_dict
        from hidden_subnet.config.identity import digest, earlier_folder_name, folder_name, projection

        def name(settings: Settings) -> str:
            config = from_dict(settings)
            now, what = earlier_folder_name(config) or folder_name(config), projection(config)
            before = f"{now[:-13]}-{digest({**what, 'schema': 1})[:12]}"
            assert (what["schema"], now != before) == ((2, True) if renamed(settings) else (1, False)), settings
            return before

        return name
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("hidden_subnet"):
            raise
        from hidden_subnet.identity import folder_name

        from hidden_subnet.config import from_dict
    more: Settings = {}
    try:
        folder_name(from_dict(random_settings(random.Random(0))))
    except ValueError:  # 42ebd4d needs the name of a tracker, though it is no part of an id
        more = {"tracker": {"name": "none"}}
    return lambda settings: folder_name(from_dict({**settings, **more}))


def names(many: list[Settings]) -> list[str]:
    """Name the folders of many runs."""
    name = namer()
    return [name(each) for each in many]


def digest(count: int = COUNT) -> str:
    """Hash the folder names of `count` random runs, joined by newlines, in two processes."""
    many = list(all_settings(count))
    with ProcessPoolExecutor(2) as pool:
        found = [*pool.map(names, (many[start : start + CHUNK] for start in range(0, count, CHUNK)))]
    return hashlib.sha256("\n".join(name for chunk in found for name in chunk).encode()).hexdigest()


def golden() -> list[tuple[Settings, str]]:
    """Read the settings and names of the golden runs out of the test of identity, wherever below tests/ it lies."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        constants = _constants(path, ("SCHEMA_1", "GOLDEN"))
        if len(constants) == 2:
            return [(_changed(constants["SCHEMA_1"], changes), name) for changes, name in constants["GOLDEN"]]
    raise FileNotFoundError(f"no test_*.py below {ROOT / 'tests'} has both SCHEMA_1 and GOLDEN")


def _constants(path: Path, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Return the literals that the top level of a Python file gives to the `wanted` names; the file is not executed."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and target.id in wanted and isinstance(node, ast.Assign | ast.AnnAssign):
                found[target.id] = ast.literal_eval(node.value) if node.value else None
    return found


def _changed(base: str, changes: dict[str, Any]) -> Settings:
    """Return the settings of the YAML text `base` with `changes` ("group.key": value), without the tracker."""
    settings: Settings = yaml.safe_load(base)
    del settings["tracker"]
    for key, value in changes.items():
        *groups, last = key.split(".")
        inner = settings
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return settings


def check_coverage(count: int = 2_000) -> None:
    """Assert that the first runs drawn hold every value of every table, and every spelling of numbers."""
    seen: set[tuple[str, str]] = set()
    for settings in all_settings(count):
        library, method = settings["model"].get("library", "own"), settings["method"]["name"]
        seen.add((f"{library}.name", repr(settings["model"]["name"])))
        seen |= {(f"{method}.{key}", repr(value)) for key, value in settings["method"].items()}
        for group, inner in settings.items():
            pairs = inner.items() if isinstance(inner, dict) else [("", inner)]
            seen |= {(f"{group}.{key}", repr(value)) for key, value in pairs}
    tables = {"model": MODEL, "init": INIT, "data": IMAGES, "pruning": PRUNING, "train": TRAIN, **METHODS}
    wanted = {f"{group}.{key}": values for group, table in tables.items() for key, values in table.items()}
    wanted |= {f"{method}.name": (method,) for method in METHODS}
    wanted |= {f"seeds.{stream}": SEEDS for stream in STREAMS}
    wanted |= {"own.name": MODELS, "torchvision.name": TORCHVISION, "init.name": INITS, "data.name": DATA}
    wanted |= {"pruning.name": PRUNINGS, "data.found": FOUND, "pretrained_sha256.": WEIGHTS, "prune_rate.": RATES}
    missing = [(key, value) for key, values in wanted.items() for value in values if (key, repr(value)) not in seen]
    assert not missing, missing
    spellings = ("0.3", "0.30000000000000004", "0.0", "-0.0", "0")
    missing = [
        (key, text) for key in ("prune_rate.", "pruning.start_rate") for text in spellings if (key, text) not in seen
    ]
    missing += [(key, "1") for key in ("model.width", "model.temperature", "train.lr") if (key, "1") not in seen]
    assert not missing, missing


def main() -> int:
    """Print the digest; return the exit code."""
    sys.path.insert(0, str(ROOT))  # the package of this checkout, and not an installed one
    check_coverage()
    wrong = [(expected, name) for settings, expected in golden() if (name := namer()(settings)) != expected]
    for expected, name in wrong:
        print(f"golden: {expected} has become {name}")
    found = digest()
    print(found)
    if found != DIGEST:
        print(f"differs from {DIGEST}")
    return int(bool(wrong) or found != DIGEST)


if __name__ == "__main__":
    sys.exit(main())
