"""mask=: where it comes from, what it is in an id, how it fits, and runs that are built on it."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.runs import QUIET, interrupt
from torch import Tensor

import hidden_subnet
from hidden_subnet.analysis.evaluate import rebuilt
from hidden_subnet.cli.evaluate import evaluate
from hidden_subnet.cli.main import main
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config, Device
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.state import current_masks
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.sweep.preflight import preflight
from hidden_subnet.training.experiment import build_network, masked, open_images, resolve
from hidden_subnet.training.given_mask import GivenMask, digest_of, match_mask, read_mask, resolve_mask

Compose = Callable[..., Config]
TINY = ("data=synthetic", "model=fc", "model.width=0.1", "train.epochs=2", "tracker=none")
SHAPES = {"fc1": (30, 64), "fc2": (10, 30), "fc3": (10, 10)}
"""The layers of TINY."""


@pytest.fixture(scope="module")
def parent(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of edge_popup that keeps 30 % of each layer."""
    out = tmp_path_factory.mktemp("parent") / "runs"
    return execute(compose(*TINY, "prune_rate=0.7", f"out={out}"), QUIET).folder


def drawn(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=source) < 0.4 for name, shape in (shapes or SHAPES).items()}


def run(config: Config) -> tuple[Path, dict[str, Any], list[str]]:
    """Execute a run; return its folder, its result, and what it said of its mask."""
    said: list[str] = []
    outcome = execute(config, RunObserver(QUIET.on_row, QUIET.on_step, said.append))
    assert outcome.result is not None, outcome.message
    return outcome.folder, outcome.result, [line for line in said if line.startswith("mask of")]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# The digest


def test_a_run_and_its_files_are_one_mask(parent: Path, compose: Compose, tmp_path: Path) -> None:
    ours = hidden_subnet.save_masks(parent, tmp_path / "x.mask")
    plain = hidden_subnet.save_masks(parent, tmp_path / "x.safetensors")
    torch.save(hidden_subnet.load_masks(parent), tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", **{name: mask.numpy() for name, mask in hidden_subnet.load_masks(parent).items()})
    shutil.copytree(parent, copy := tmp_path / "runs" / parent.name)
    given = [parent, copy, parent / "checkpoints" / "last.ckpt", ours, plain, tmp_path / "x.pt", tmp_path / "x.npz"]
    composed = [compose(*TINY, "method=fixed", f"mask={each}") for each in given]
    composed.append(compose(*TINY, "method=fixed", f"mask={parent.name[-12:]}", f"out={copy.parent}"))
    assert {config.mask_sha256 for config in composed} == {digest_of(hidden_subnet.load_masks(parent))}
    assert len({folder_name(config) for config in composed}) == 1
    assert "-mask-" in folder_name(composed[0])
    first = compose(*TINY, "method=fixed", f"mask={parent / 'checkpoints' / 'first.ckpt'}")
    assert first.mask_sha256 != composed[0].mask_sha256
    again = compose(*TINY, "method=fixed", f"mask={ours}", f"mask_sha256={composed[0].mask_sha256}")
    assert folder_name(again) == folder_name(composed[0])


def test_the_digest_is_of_names_shapes_and_bits() -> None:
    masks = {"a": torch.tensor([[True, False]]), "b": torch.tensor([True])}
    others: list[dict[str, Tensor]] = [
        {"a": torch.tensor([[False, True]]), "b": masks["b"]},
        {"a": masks["a"].T.contiguous(), "b": masks["b"]},
        {"a": masks["a"], "c": masks["b"]},
        {"a": masks["a"]},
    ]
    assert len({digest_of(each) for each in [masks, *others]}) == 5
    assert digest_of(dict(reversed(masks.items()))) == digest_of(masks)


# Files of others


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: name,
        lambda name: f"{name}.weight",
        lambda name: f"module.{name}.weight",
        lambda name: f"layer{name}",  # by their order
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_masks_of_other_programs_are_read(suffix: str, spell: Callable[[str], str], tmp_path: Path) -> None:
    masks, path = drawn(), tmp_path / f"theirs{suffix}"
    named = {spell(name): mask for name, mask in masks.items()}
    if suffix == ".pt":
        torch.save(named, path)
    elif suffix == ".npz":
        np.savez_compressed(path, **{name: mask.numpy() for name, mask in named.items()})
    else:
        safetensors.torch.save_file(named, path)
    if suffix == ".safetensors" and spell("x") == "layerx":
        with pytest.raises(ValueError, match="no layer of it fits this network"):  # they have no order
            match_mask(SHAPES, read_mask(path))
    else:
        assert same(match_mask(SHAPES, read_mask(path)).fit, masks)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.pt", "bomb", "is refused"),
        ("x.pt", b"text", "is not a file of masks, as torch.save writes them, or damaged; give another run or file"),
        ("x.pt", b"", "is not a file of masks"),
        ("x.pt", {"fc1": torch.ones(3)}, r"x\.pt: fc1 holds float32 and not bool; write mask\.bool\(\)"),
        ("x.pt", {"fc1": 3}, "holds no tensors by name"),
        ("x.pt", {"fc1": torch.zeros(3, dtype=torch.bool)}, "keeps no weight in any layer"),
        ("x.pt", {"fc1": torch.ones(1, dtype=torch.bool).expand(10**12)}, "fc1 is a expanded tensor"),
        ("x.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", "holds no masks by name"),
        ("x.npz", b"text", "cannot be read"),
        ("x.npz", "pickle", "cannot be read .*allow_pickle"),
        ("x.npz", "zeros", "unpacks to 95 MB, more than 100 times its size"),
        ("x.mask", b"text", "is damaged"),
    ],
)
def test_files_that_are_no_masks_are_refused_in_one_line(
    name: str, content: Any, words: str, tmp_path: Path, compose: Compose
) -> None:
    path, exploded = tmp_path / name, tmp_path / "exploded"
    if content == "zeros":
        np.savez_compressed(path, fc1=np.zeros(100_000_000, dtype=bool))
    elif content == "pickle":
        np.savez(path, fc1=np.array([Bomb(exploded)], dtype=object))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(Bomb(exploded) if content == "bomb" else content, path)
    with pytest.raises(ConfigError, match=words) as caught:
        compose(*TINY, "method=fixed", f"mask={path}")
    assert str(caught.value).startswith(f"mask={path}")
    assert "\n" not in str(caught.value)
    assert not exploded.exists()


def test_a_bare_pickle_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2))
    with pytest.raises(ValueError, match="is refused"):
        read_mask(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mask=nope", "mask=nope: there is no such file, and no run .*; as in: "),
        ("mask={folder}", "is neither a file of masks nor the folder of a run; as in: mask=runs/digits-conv2"),
        ("mask={parent} mask_sha256=00", "is another mask than that of mask_sha256=00; to take this one; type: mask_"),
        ("mask_sha256=00", "name the mask too; as in: mask=runs/digits-conv2 mask_sha256=00"),
        ("mask={dense}", "method=dense masks nothing; give another run or file"),
        ("mask={parent}/checkpoints/best.ckpt/x", "there is no such file"),
    ],
)
def test_what_is_no_mask_is_refused_when_the_command_is_read(
    given: str, words: str, parent: Path, compose: Compose, tmp_path: Path
) -> None:
    dense = execute(compose(*TINY, "method=dense", "train.epochs=1", f"out={tmp_path}"), QUIET).folder
    (tmp_path / "folder").mkdir()
    typed = given.format(folder=tmp_path / "folder", parent=parent, dense=dense).split()
    with pytest.raises(ConfigError, match=words) as caught:
        compose(*TINY, "method=finetune", f"out={tmp_path}", *typed)
    assert "\n" not in str(caught.value)


def test_a_mask_that_changes_later_is_noticed(compose: Compose, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(drawn(0), path)
    config = compose(*TINY, "method=fixed", f"mask={path}", f"out={tmp_path / 'runs'}")
    torch.save(drawn(1), path)
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    assert "its digest has changed" in outcome.message
    assert resolve_mask(replace(config, mask_sha256=None)).mask_sha256 == digest_of(drawn(1))


# Runs


def test_fixed_has_the_accuracy_of_the_run_that_found_the_mask(
    parent: Path, compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = files.read_result(parent)
    assert found is not None
    shutil.copytree(parent, source := tmp_path / "runs" / parent.name)
    folder, result, said = run(compose(*TINY, "method=fixed", f"mask={source}", f"out={source.parent}"))
    shutil.rmtree(source)  # the run needs it no more
    assert result["last"]["test"] == found["last"]["test"]
    assert result["density"] == found["density"]
    assert result["weights_sha256"] == found["weights_sha256"]
    assert result["mask"] == {
        "sha256": digest_of(hidden_subnet.load_masks(parent)), "from": parent.name, "density": found["density"],
        "file": str(source / "checkpoints" / "last.ckpt"), "layers": [*SHAPES], "without": {},
    }  # fmt: skip
    assert said == [f"mask of {parent.name}: 3 of 3 layers fit, with 30 % of their weights kept"]
    assert same(hidden_subnet.load_masks(folder), hidden_subnet.load_masks(parent))
    assert evaluate(folder.parent, folder.name, Device.auto, None) == 0
    assert "equal to the last bit" in capsys.readouterr().out
    path = hidden_subnet.save_masks(folder, tmp_path / "again.mask")
    assert str(tmp_path) not in path.read_bytes().decode(errors="ignore")
    assert same(hidden_subnet.load_masks(path), hidden_subnet.load_masks(parent))
    assert same(hidden_subnet.load(path).state_dict(), hidden_subnet.load(parent).state_dict())


def test_finetune_trains_the_kept_weights_only(parent: Path, compose: Compose, tmp_path: Path) -> None:
    shutil.copytree(parent, source := tmp_path / "runs" / parent.name)
    folder, result, _ = run(compose(*TINY, "method=finetune", f"mask={source}", f"out={source.parent}"))
    shutil.rmtree(source)
    masks, first, last = (
        hidden_subnet.load_masks(parent),
        hidden_subnet.load(folder, "first"),
        hidden_subnet.load(folder),
    )
    assert same(hidden_subnet.load_masks(folder), masks)
    found = hidden_subnet.load(parent)
    for name, mask in masks.items():
        one, other, before = (each.get_parameter(f"{name}.weight") for each in (first, last, found))
        assert torch.equal(one, before)  # from the random weights of the same seed
        assert not other[~mask].any()
        assert not torch.equal(one, other)
    assert result["density"] == result["mask"]["density"]
    with rebuilt(folder, Device.cpu) as (experiment, _):
        assert experiment.config.mask is None
        assert experiment.config.mask_sha256 == digest_of(masks)


def test_weights_and_mask_of_others_are_rewound(parent: Path, compose: Compose, tmp_path: Path) -> None:
    """pretrained= and mask= together: the weights of the one under the mask of the other."""
    dense = execute(compose(*TINY, "method=dense", f"out={tmp_path}"), QUIET).folder
    start = dense / "checkpoints" / "first.ckpt"
    config = compose(*TINY, "method=finetune", f"mask={parent}", f"pretrained={start}", f"out={tmp_path}")
    folder, result, said = run(config)
    weights = checkpoints.load(start)["trained"]
    for name, value in hidden_subnet.load(folder, "first").named_parameters():
        mask = hidden_subnet.load_masks(parent)[name.removesuffix(".weight")]
        assert torch.equal(value, weights[name] * mask)
    assert result["pretrained"]["loaded"] == 3
    assert len(said) == 1  # other weights were asked for


def first_masks(config: Config, folder: Path) -> dict[str, Tensor]:
    resolved = resolve(config, "cpu")
    with open_images(resolved) as loaders:
        return current_masks(masked(build_network(resolved), resolved, folder, loaders).network)


@pytest.mark.parametrize(
    "method",
    ["edge_popup", "iterand", "biprop", "multicoat", "signed", "edge_popup method.transform=identity"],
)
def test_a_search_begins_with_the_mask_at_its_density_and_nested_at_others(
    method: str, parent: Path, compose: Compose, tmp_path: Path
) -> None:
    words = [f"method={method.split()[0]}", *method.split()[1:], "init=kaiming_normal", f"mask={parent}"]
    masks = hidden_subnet.load_masks(parent)
    assert same(first_masks(compose(*TINY, *words, "prune_rate=0.7"), tmp_path), masks)
    sparser = first_masks(compose(*TINY, *words, "prune_rate=0.9"), tmp_path)
    denser = first_masks(compose(*TINY, *words, "prune_rate=0.5"), tmp_path)
    for name, mask in masks.items():
        assert not (sparser[name] & ~mask).any()
        assert not (mask & ~denser[name]).any()
        assert sparser[name].sum() < mask.sum() < denser[name].sum()


def test_the_search_has_the_scores_that_it_would_have_drawn(parent: Path, compose: Compose, tmp_path: Path) -> None:
    scores = []
    for more in ((), (f"mask={parent}",)):
        config = compose(*TINY, *more, "prune_rate=0.7")
        resolved = resolve(config, "cpu")
        with open_images(resolved) as loaders:
            experiment = masked(build_network(resolved), resolved, tmp_path, loaders)
        scores.append([layer.scores.detach().flatten() for _, layer in experiment.method.layers])
    for one, other in zip(*scores, strict=True):
        assert not torch.equal(one, other)
        assert torch.equal(one.sort().values, other.sort().values)


def test_an_interrupted_search_from_a_mask_has_the_same_bits(parent: Path, compose: Compose, tmp_path: Path) -> None:
    words = [*TINY, f"mask={parent}", "prune_rate=0.8"]
    whole, _, _ = run(compose(*words, f"out={tmp_path / 'whole'}"))
    broken = compose(*words, f"out={tmp_path / 'broken'}")
    interrupt(broken, 3)
    again, _, said = run(broken)
    assert said == []  # it was said when it began
    assert same(*(checkpoints.load(each / "checkpoints" / "last.ckpt")["trained"] for each in (whole, again)))


# Transfer


def given(**shapes: tuple[int, ...]) -> GivenMask:
    masks = {name: torch.arange(1, 1 + np.prod(shape)).view(shape) % 2 == 0 for name, shape in shapes.items()}
    return GivenMask("found", Path("found"), masks)


def test_a_layer_that_does_not_fit_keeps_all() -> None:
    match = match_mask({"fc1": (4, 2), "fc2": (10, 4)}, given(fc1=(4, 2), fc2=(100, 4), fc3=(2, 2)))
    assert [*match.fit] == ["fc1"]
    assert match.density == 0.5
    assert match.summary() == (
        "mask of found: 1 of 2 layers fit, with 50 % of their weights kept; fc2: 10x4 here, 100x4 there, so it keeps "
        "all weights; not used: fc3"
    )
    more = {f"fc{index}": (index, 2) for index in range(2, 8)}
    match = match_mask({"fc1": (4, 2), **more}, given(fc1=(4, 2)), keeps_all=False)
    assert match.summary() == (
        "mask of found: 1 of 7 layers fit, with 50 % of their weights kept; fc2: not there, fc3: not there, fc4: not "
        "there, and 3 more, so each has its scores as they were drawn"
    )


def test_nothing_fits() -> None:
    with pytest.raises(ValueError, match=r"^found: no layer of it fits this network; fc1: 4x2 here, 3x2 in the file; "):
        match_mask({"fc1": (4, 2)}, given(fc1=(3, 2)))


@pytest.mark.parametrize("method", ["fixed", "finetune", "edge_popup"])
def test_a_mask_of_other_classes_is_transferred(method: str, compose: Compose, tmp_path: Path, parent: Path) -> None:
    masks = hidden_subnet.load_masks(parent) | {"fc3": torch.ones(7, 10, dtype=torch.bool)}
    torch.save(masks, path := tmp_path / "x.pt")
    config = compose(*TINY, f"method={method}", f"mask={path}", "prune_rate=0.7", "train.epochs=1", f"out={tmp_path}")
    preflight([config])
    folder, result, said = run(config)
    effect = "has its scores as they were drawn" if method == "edge_popup" else "keeps all weights"
    assert said == [
        f"mask of x.pt: 2 of 3 layers fit, with 30 % of their weights kept; fc3: 10x10 here, 7x10 there, so it {effect}"
    ]
    assert result["mask"]["without"] == {"fc3": "10x10 here, 7x10 there"}
    first = hidden_subnet.load_masks(folder, "last" if method == "fixed" else "first")
    assert torch.equal(first["fc1"], masks["fc1"])
    assert bool(first["fc3"].all()) == (method != "edge_popup")


def test_a_mask_of_another_network_is_refused_before_the_first_run(
    parent: Path, compose: Compose, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    config = compose(*TINY, "model.width=0.2", "method=finetune", f"mask={parent}", f"out={out}")
    with pytest.raises(ConfigError, match=r"^mask=.* no layer of it fits this network; fc1: 60x64 here, 30x64 in the"):
        preflight([config])
    assert not out.exists()


def test_other_random_weights_are_said(parent: Path, compose: Compose, tmp_path: Path) -> None:
    config = compose(*TINY, "method=fixed", f"mask={parent}", "seed=1", "init=kaiming_normal", f"out={tmp_path}")
    _, result, said = run(config)
    assert said[1:] == [
        f"mask of {parent.name}: it was found under other random weights (init.name signed_constant there, "
        "kaiming_normal here; seeds.weights 0 there, 1 here)"
    ]
    assert result["last"]["test"]["top1"] < 0.5


# The commands


def test_the_command_writes_safetensors(parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--to", str(tmp_path / "x.safetensors")], ["--to", str(tmp_path / "y"), "--format", "safetensors"]):
        with pytest.raises(SystemExit) as ended:
            main(["mask", str(parent), *words])
        assert ended.value.code == 0
        path = Path(words[1])
        assert capsys.readouterr().out.splitlines() == [
            f"wrote {path}: {path.stat().st_size:,} bytes, a boolean tensor by layer",
            f"build on it with: method=finetune mask={path}",
        ]
        found = safetensors.torch.load_file(path)
        assert {str(mask.dtype) for mask in found.values()} == {"torch.bool"}
        assert same(found, hidden_subnet.load_masks(parent))


def test_masks_of_methods_that_change_weights_are_written_as_tensors(
    parent: Path, compose: Compose, tmp_path: Path
) -> None:
    folder, _, _ = run(compose(*TINY, "method=snip", "train.epochs=1", f"out={tmp_path}"))
    path = hidden_subnet.save_masks(folder, format="safetensors")
    assert path == folder / "last.safetensors"
    assert same(read_mask(path).masks, hidden_subnet.load_masks(folder))
    dense, _, _ = run(compose(*TINY, "method=dense", "train.epochs=1", f"out={tmp_path}"))
    with pytest.raises(ConfigError, match="method=dense masks nothing; for the runs with masks; type: "):
        hidden_subnet.save_masks(dense, format="safetensors")


def test_a_parent_is_deleted_only_where_that_is_asked_for(
    parent: Path, compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(parent, source := out / parent.name)
    child, _, _ = run(compose(*TINY, "method=fixed", f"mask={source}", f"out={out}"))
    grandchild, _, _ = run(
        compose(*TINY, "method=random", f"pretrained={child / 'checkpoints' / 'last.ckpt'}", f"out={out}")
    )

    def rm(*names: str) -> object:
        with pytest.raises(SystemExit) as ended:
            main(["rm", "--yes", "--out", str(out), *names])
        return ended.value.code

    assert rm(parent.name) == (
        f"error: nothing is deleted: {parent.name}: {child.name} starts from it (mask=), and needs it to be run again; "
        f"to delete it too; type: python -m hidden_subnet rm --parents {parent.name}"
    )
    assert "(pretrained=)" in str(rm(child.name))
    assert len([*out.glob("synthetic-*")]) == 3
    assert rm(child.name, grandchild.name) == 0  # both together
    assert rm(parent.name) == 0
    shutil.copytree(parent, source)
    run(compose(*TINY, "method=fixed", f"mask={source}", f"out={out}"))
    assert rm("--parents", parent.name) == 0


def test_a_misspelled_method_and_a_checkpoint_of_a_run_by_its_id(compose: Compose, parent: Path) -> None:
    with pytest.raises(ConfigError) as error:
        compose(*TINY, "method=finetune", "mask=edgepopup")
    line = "mask=edgepopup: names no method, and there is no such file; did you mean: mask=edge_popup"
    assert str(error.value) == line
    with pytest.raises(ConfigError, match=r"; as in: mask=synthetic-\S+$|; did you mean: mask=synthetic-\S+$"):
        compose(*TINY, "method=finetune", "mask=another_run", f"out={parent.parent}")
    named = compose(
        *TINY, "method=finetune", f"mask={parent.name[-12:]}/checkpoints/first.ckpt", f"out={parent.parent}"
    )
    assert named.mask == str(parent / "checkpoints" / "first.ckpt")


def test_a_shuffled_mask_keeps_as_many_weights_of_each_layer(compose: Compose, parent: Path, tmp_path: Path) -> None:
    words = (*TINY, "method=finetune", f"mask={parent}", "method.shuffle=true")
    shuffled, same, other = (
        hidden_subnet.load_masks(run(compose(*words, seeds, f"out={tmp_path / name}"))[0], "first")
        for name, seeds in (("a", "seed=0"), ("b", "seeds.data=1"), ("c", "seeds.scores=1"))
    )
    for path, given in hidden_subnet.load_masks(parent).items():
        assert shuffled[path].sum() == given.sum()
        assert torch.equal(shuffled[path], same[path])
        assert not torch.equal(shuffled[path], given)
        assert not torch.equal(shuffled[path], other[path])
