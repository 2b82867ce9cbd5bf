"""pretrained=: weights from a file, put together by name, shape or order; runs from them, and wrong files."""

import hashlib
import math
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.runs import QUIET, tensor_byte
from torch import Tensor, nn

import hidden_subnet
from hidden_subnet.cli.evaluate import evaluate
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config, Device
from hidden_subnet.errors import ConfigError
from hidden_subnet.models.pretrained_weights import WeightMatch, load_weights, match_weights, read_weights
from hidden_subnet.store import checkpoints, files
from hidden_subnet.store.files import load_config
from hidden_subnet.store.pretrained import resolve_pretrained
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.sweep.preflight import preflight

Compose = Callable[..., Config]
TINY = ("data=synthetic", "model=fc", "model.width=0.1", "train.epochs=2", "train.batch_size=100", "tracker=none")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3, bias=False))


NAMES = list(network().state_dict())
NAMES_THERE = [f"x{name}" for name in NAMES]


def state() -> dict[str, Tensor]:
    return {
        name: torch.full_like(value, index + 2) for index, (name, value) in enumerate(network().state_dict().items())
    }


def values(model: nn.Module) -> list[float]:
    """Return the one value of each tensor that `state` filled."""
    return [value.float().unique().item() for value in model.state_dict().values()]


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state},
    "module": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "1x1": lambda state: state | {"3.weight": state["3.weight"].view(3, 8, 1, 1)},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_ways_in_which_weights_are_stored(how: str, tmp_path: Path) -> None:
    model = network()
    fit = load_weights(model, write(tmp_path / "x.pt", WRAPPED[how](state())))
    assert values(model) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert fit.summary() == "8 tensors loaded"


def test_the_authors_names_go_in_order(tmp_path: Path) -> None:
    """Other names throughout, scores beside the weights, linear layers as 1x1 convolutions."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(8, 4, bias=False), nn.Linear(4, 3, bias=False)
    )
    theirs = {}
    for index, (name, shape) in enumerate(
        [("convs.0", (2, 1, 3, 3)), ("linear.0", (4, 8, 1, 1)), ("linear.2", (3, 4, 1, 1))]
    ):
        theirs |= {f"module.{name}.weight": torch.full(shape, index + 2.0), f"module.{name}.scores": torch.ones(shape)}
    fit = load_weights(model, write(tmp_path / "x.pth", {"state_dict": theirs}))
    assert values(model) == [2, 3, 4]
    assert (
        fit.summary()
        == "3 tensors loaded in their order, 3 unexpected (convs.0.scores, linear.0.scores, linear.2.scores)"
    )


@pytest.mark.parametrize("change", ["shape", "order", "one less"])
def test_an_order_that_is_not_the_same_is_no_order(change: str, tmp_path: Path) -> None:
    theirs = {f"x{name}": value for name, value in state().items()}
    if change == "shape":
        theirs["x3.weight"] = torch.zeros(3, 9)
    elif change == "order":
        theirs = {name: theirs[name] for name in [*NAMES_THERE[1:], NAMES_THERE[0]]}
    else:
        del theirs["x1.bias"]
    with pytest.raises(ValueError, match=r"nothing in it fits this network; 0.weight: 2x1x3x3 here, none in the file;"):
        load_weights(network(), write(tmp_path / "x.pt", theirs))


def test_what_does_not_fit_is_named() -> None:
    found = state() | {"3.weight": torch.zeros(3, 9), "other": torch.zeros(1), "a": torch.zeros(1)}
    del found["1.bias"], found["0.bias"]
    fit = match_weights(network(), found)
    assert list(fit.values) == [name for name in NAMES if name not in ("1.bias", "0.bias", "3.weight")]
    assert (fit.missing, fit.unexpected) == (["0.bias", "1.bias"], ["other", "a"])
    assert fit.mismatched == ["3.weight: 3x8 here, 3x9 in the file"]
    assert fit.summary() == (
        "5 tensors loaded, 2 missing (0.bias, 1.bias), 2 unexpected (other, a), "
        "1 of another shape (3.weight: 3x8 here, 3x9 in the file)"
    )


def test_three_are_named_and_all_are_counted() -> None:
    fit = WeightMatch({}, ["a", "b", "c", "d"], [], [])
    assert fit.summary() == "0 tensors loaded, 4 missing (a, b, c, ...)"
    assert fit.record()["missing"] == {"count": 4, "first": ["a", "b", "c"]}


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("bomb", "is refused"),
        ("bare bomb", "is refused"),
        ("module", "is refused"),
        ("text", "is not a file of weights"),
        ("empty", "is not a file of weights"),
        ("cut", "is not a file of weights, or damaged"),
        ("checkpoint", "is not a file of weights, or damaged"),
        ("flipped checkpoint", "is damaged: its digest"),
        ("number", "holds no tensors"),
        ("list", "holds no tensors"),
    ],
)
def test_files_that_are_no_weights(content: str, word: str, tmp_path: Path) -> None:
    path, exploded = tmp_path / "x.pt", tmp_path / "exploded"
    if content == "checkpoint":
        checkpoints.save(path, {"trained": state()})
        path.write_bytes(path.read_bytes()[:-1])
    elif content == "flipped checkpoint":
        checkpoints.save(path, {"trained": state()})
        content_of = bytearray(path.read_bytes())
        content_of[tensor_byte(path)] ^= 1
        path.write_bytes(content_of)
    elif content in ("text", "empty"):
        path.write_text("some text\n" * (content == "text"))
    elif content == "bare bomb":
        path.write_bytes(pickle.dumps(Bomb(exploded), protocol=2))
    else:
        things: dict[str, Any] = {
            "bomb": {"state_dict": Bomb(exploded)}, "module": network(), "cut": state(), "number": 3,
            "list": [torch.ones(1)],
        }  # fmt: skip
        write(path, things[content])
        if content == "cut":
            path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=word) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not exploded.exists()


def deflated(path: Path) -> Path:
    """The same file, compressed."""
    packed = path.with_suffix(".packed.pt")
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for name in plain.namelist():
            made.writestr(name, plain.read(name))
    return packed


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = deflated(write(tmp_path / "x.pt", {"1.weight": torch.zeros(3_000_000)}))
    with pytest.raises(
        checkpoints.RefusedError, match=r"unpacks to 0.012 GB, more than its own .*, which is the limit"
    ):
        read_weights(path)
    with pytest.raises(checkpoints.RefusedError, match="write it again without: python -c"):
        checkpoints.load(path)


def test_a_file_that_holds_the_same_bytes_many_times_over_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pt", {"1.weight": torch.zeros(100_000)})
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # an entry of the directory of a zip, whose size stands 24 bytes further on
    content[at + 24 : at + 28] = (4_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(checkpoints.DamagedError):
        read_weights(path)
    content[at + 20 : at + 24] = content[at + 24 : at + 28]  # its size in the file
    path.write_bytes(content)
    with pytest.raises(checkpoints.RefusedError, match="unpacks to 4 GB"):
        read_weights(path)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("meta", torch.zeros(3, device="meta")), ("sparse", torch.eye(3).to_sparse()),
        ("complex", torch.zeros(3, dtype=torch.complex64)),
        ("expanded", torch.zeros(1).expand(10**9)),
    ],
)  # fmt: skip
def test_tensors_of_odd_kinds_are_refused(kind: str, value: torch.Tensor, tmp_path: Path) -> None:
    path = write(tmp_path / "x.pt", state() | {"1.bias": value})
    with pytest.raises(ValueError, match=rf"x\.pt: 1\.bias is a {kind} tensor; save plain ones"):
        load_weights(network(), path)
    torch.save({"trained": {"a": value}, "epoch": 1, "sha256": "0" * 64}, path)
    with pytest.raises(checkpoints.DamagedError, match=rf"x\.pt is damaged: it holds a {kind} tensor"):
        checkpoints.load(path)


def test_lists_of_the_same_list_are_refused_at_once(tmp_path: Path) -> None:
    path, value = tmp_path / "x.pt", [0.0]
    for _ in range(60):
        value = [value, value]  # type: ignore[list-item]
    torch.save({"trained": value, "sha256": "0" * 64}, path)
    with pytest.raises(checkpoints.DamagedError, match="it holds too many values"):
        checkpoints.load(path)


def test_a_wrapper_that_holds_itself_is_refused(tmp_path: Path) -> None:
    wrapper: dict[str, Any] = {}
    wrapper["model"] = wrapper
    with pytest.raises(ValueError, match="holds no tensors by name"):
        read_weights(write(tmp_path / "x.pt", wrapper))


def test_safetensors_are_read(tmp_path: Path) -> None:
    theirs = state()
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({f"module.{name}": value for name, value in theirs.items()}, path)
    found = read_weights(path)
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[name], theirs[name]) for name in theirs)


def test_damaged_safetensors_are_one_line(tmp_path: Path) -> None:
    path, head = tmp_path / "x.safetensors", b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}'
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    with pytest.raises(
        ValueError, match=r"x\.safetensors is a damaged safetensors file \(.*\); give another file"
    ) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    theirs = state()
    theirs["1.bias"][0] = value
    with pytest.raises(ValueError, match=r"x.pt: 1.bias holds values that are NaN or infinite"):
        load_weights(network(), write(tmp_path / "x.pt", theirs))


# Whole runs


@pytest.fixture(scope="module")
def dense(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dense") / "runs"
    return execute(compose(*TINY, "method=dense", f"out={out}"), QUIET).folder


@pytest.mark.parametrize("method", ["edge_popup", "random", "dense"])
def test_a_run_from_a_dense_run_holds_its_weights(
    method: str, dense: Path, compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dense, source := tmp_path / "runs" / dense.name)
    said: list[str] = []
    config = compose(*TINY, f"method={method}", f"pretrained={dense.name[-12:]}", f"out={source.parent}")
    preflight([config])
    outcome = execute(config, RunObserver(QUIET.on_row, QUIET.on_step, said.append))
    result, folder = outcome.result, outcome.folder
    assert result is not None
    trained = files.read_result(dense)
    assert trained is not None
    assert result["untrained"]["unpruned"] == trained["last"]["test"]
    assert result["weights_sha256"] != trained["weights_sha256"]
    path = source / "checkpoints" / "last.ckpt"
    assert said == [f"pretrained={path}: 3 tensors loaded"]
    none = {"count": 0, "first": []}
    assert result["pretrained"] == {
        "file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "loaded": 3, "in_order": False,
        "missing": none, "unexpected": none, "mismatched": none,
    }  # fmt: skip
    shutil.rmtree(source)  # the run needs the file no more
    images, labels = hidden_subnet.test_images(folder)
    for which in ("last", "best"):
        model = hidden_subnet.load(folder, which)  # type: ignore[arg-type]
        accuracy = (model(images).argmax(dim=1) == labels).double().mean().item()
        assert accuracy == result[which]["test"]["top1"]
    assert evaluate(folder.parent, folder.name, Device.auto, None) == 0
    assert "equal to the last bit" in capsys.readouterr().out
    if method != "dense":
        kept = checkpoints.load(dense / "checkpoints" / "last.ckpt")["trained"]
        for name, parameter in hidden_subnet.load(folder).named_parameters():
            assert torch.equal(parameter, kept[name] * (parameter != 0))


def test_an_interrupted_run_from_a_file_has_the_same_bits(dense: Path, compose: Compose, tmp_path: Path) -> None:
    whole = execute(compose(*TINY, f"pretrained={dense}", f"out={tmp_path / 'whole'}"), QUIET).folder
    config = compose(*TINY, f"pretrained={dense}", f"out={tmp_path / 'broken'}")
    taken: list[int] = []
    display = RunObserver(QUIET.on_row, lambda epoch, batch, batches: taken.append(batch), QUIET.say)
    assert execute(config, display, stopped=lambda: len(taken) >= 7).state == "interrupted"
    broken = execute(config, QUIET).folder
    a, b = (checkpoints.load(folder / "checkpoints" / "last.ckpt")["trained"] for folder in (whole, broken))
    assert a.keys() == b.keys() == {f"fc{i}.{what}" for i in (1, 2, 3) for what in ("weight", "scores")}
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_identity_is_the_digest_and_not_the_path(dense: Path, compose: Compose, tmp_path: Path) -> None:
    copy = tmp_path / "weights.ckpt"
    shutil.copy(dense / "checkpoints" / "last.ckpt", copy)
    names = [folder_name(compose(*TINY, f"pretrained={path}")) for path in (dense, copy)]
    assert names[0] == names[1] != folder_name(compose(*TINY))
    other = folder_name(compose(*TINY, f"pretrained={dense / 'checkpoints' / 'best.ckpt'}"))
    assert len({names[0], other, folder_name(compose(*TINY))}) == 3
    assert "-pretrained-" in other
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    assert folder_name(compose(*TINY, f"pretrained={copy}", f"pretrained_sha256={digest}")) == names[0]


def test_config_yaml_keeps_the_file_and_its_digest(dense: Path, compose: Compose, tmp_path: Path) -> None:
    config = compose(*TINY, "method=random", f"pretrained={dense}", f"out={tmp_path}")
    folder = execute(config, QUIET).folder
    again = load_config(folder / files.CONFIG)
    assert (again.pretrained, again.pretrained_sha256) == (config.pretrained, config.pretrained_sha256)
    assert folder_name(again) == folder.name
    assert execute(config, QUIET).state == "skipped"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("pretrained=nope.pt", ["pretrained=nope.pt: there is no such file"]),
        (
            "pretrained={folder}/checkpoints",
            ["is neither a file of weights nor the folder of a run; as in: pretrained=runs/digits-conv2"],
        ),
        ("pretrained={random}", ["no checkpoint", "its method trains nothing"]),
        (
            "pretrained={dense} pretrained_sha256=00",
            ["is another file than that of pretrained_sha256=00", "; type: pretrained_sha256="],
        ),
        ("pretrained_sha256=00", ["name the file too; as in: pretrained=weights.pt pretrained_sha256=00"]),
    ],
)
def test_a_missing_file_is_refused_when_the_command_is_read(
    given: str, words: list[str], dense: Path, compose: Compose, tmp_path: Path
) -> None:
    random = execute(compose(*TINY, "method=random", f"out={tmp_path}"), QUIET).folder
    with pytest.raises(ConfigError) as caught:
        compose(*TINY, f"out={tmp_path}", *given.format(folder=dense, dense=dense, random=random).split())
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("width", ["nothing in it fits", "fc1.weight: 60x64 here, 30x64 in the file; fc2.weight: 20x60 here, 10x30 in "
                   "the file; fc3.weight: 10x20 here, 10x10 in the file"]),
        ("scores", ["nothing in it fits", "fc1.weight: 30x64 here, none in the file"]),
        ("bomb", ["is refused"]),
        ("damaged", ["or damaged"]),
    ],
)  # fmt: skip
def test_wrong_weights_are_refused_before_the_first_run(
    wrong: str, words: list[str], dense: Path, compose: Compose, tmp_path: Path
) -> None:
    path, more = tmp_path / "x.ckpt", []
    shutil.copy(dense / "checkpoints" / "last.ckpt", path)
    if wrong == "width":
        more = ["model.width=0.2"]
    elif wrong == "scores":
        checkpoints.save(path, {"trained": {f"fc{i}.scores": torch.ones(2) for i in (1, 2, 3)}})
    elif wrong == "bomb":
        torch.save(Bomb(tmp_path / "exploded"), path)
    else:
        path.write_bytes(path.read_bytes()[:-9])
    out = tmp_path / "runs"
    configs = [compose(*TINY, f"out={out}"), compose(*TINY, *more, f"pretrained={path}", f"out={out}")]
    with pytest.raises(ConfigError) as caught:
        preflight(configs)
    for word in [f"pretrained={path}", *words]:
        assert word in str(caught.value)
    assert not out.exists()
    assert not (tmp_path / "exploded").exists()


def test_a_file_that_changes_later_is_noticed(dense: Path, compose: Compose, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    shutil.copy(dense / "checkpoints" / "last.ckpt", path)
    config = compose(*TINY, f"pretrained={path}", f"out={tmp_path / 'runs'}")
    shutil.copy(dense / "checkpoints" / "first.ckpt", path)
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    assert "its digest has changed" in outcome.message
    again = resolve_pretrained(replace(config, pretrained_sha256=None))
    assert again.pretrained_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
