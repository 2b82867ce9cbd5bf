"""A whole run: what it records, that it goes on bit for bit, and that its subnetwork comes back."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from silence import QUIET

import hidden_subnet
from hidden_subnet import checkpoints, record
from hidden_subnet.execute import Display, Outcome, execute
from hidden_subnet.identity import folder_name
from hidden_subnet.loading import export
from hidden_subnet.settings import (
    METHODS,
    Config,
    Data,
    DataName,
    Init,
    InitName,
    Model,
    Pruning,
    PruningName,
    Tracker,
    TrackerName,
    Train,
)

TIMES = ("seconds", "images_per_second")


def small(out: Path, method: str = "edge_popup", **train: Any) -> Config:
    return Config(
        model=Model(name="conv2", width=0.125),
        init=Init(name=InitName.signed_constant),
        data=Data(name=DataName.synthetic, crop=1, flip=True),
        pruning=Pruning(name=PruningName.layerwise),
        method=METHODS[method](),
        train=Train(**{"epochs": 3, "batch_size": 100, "lr": 0.1, **train}),
        tracker=Tracker(name=TrackerName.none),
        out=str(out),
    )


def rows_without_times(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in record.read_rows(folder)]


def trained(folder: Path, which: str = "last") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = checkpoints.load(folder / "checkpoints" / f"{which}.ckpt")["trained"]
    return state


def assert_same_run(one: Path, other: Path) -> None:
    assert rows_without_times(one) == rows_without_times(other)
    for which in ("first", "best", "last"):
        a, b = trained(one, which), trained(other, which)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    drop = ("seconds", "environment")
    a, b = (record.read_result(folder) for folder in (one, other))
    assert a is not None
    assert b is not None
    assert {k: v for k, v in a.items() if k not in drop} == {k: v for k, v in b.items() if k not in drop}


def interrupt(config: Config, steps: int) -> Path:
    """Execute the run for so many steps, as a signal then ends it; the folder of the attempt."""
    taken: list[int] = []
    outcome = execute(
        config,
        Display(QUIET.on_row, lambda epoch, batch, batches: taken.append(batch), QUIET.say),
        stopped=lambda: len(taken) >= steps,
    )
    assert outcome.state == "interrupted"
    assert len(taken) == steps
    assert not (outcome.folder / record.RESULT).exists()
    return record.working(outcome.folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    done: dict[str, Path] = {}

    def of(method: str) -> Path:
        if method not in done:
            outcome = execute(small(tmp_path_factory.mktemp("undisturbed"), method), QUIET)
            assert outcome.state == "done", outcome.message
            done[method] = outcome.folder
        return done[method]

    return of


def test_what_a_run_records(undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed("edge_popup")
    result = record.read_result(folder)
    assert result is not None
    rows = record.read_rows(folder)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["step"] for row in rows] == [0, 5, 10, 15]  # 461 images: the last batch of 61 is kept
    layers = [layer["name"] for layer in result["layers"]]
    assert rows[1].keys() == {
        "epoch", "step", "lr", "train/loss", "train/top1", "train/top5", "validation/loss", "validation/top1",
        "validation/top5", "density", "density_all", "flip_rate", "seconds", "images_per_second",
        *(f"density/{name}" for name in layers), *(f"flip_rate/{name}" for name in layers),
    }  # fmt: skip
    assert result["chance"] == 0.1
    assert result["last"]["epoch"] == 3
    assert result["weights"] == 6_088 == result["parameters"]
    assert result["kept"] == sum(layer["kept"] for layer in result["layers"]) == 3_044
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"first.ckpt", "best.ckpt", "last.ckpt"}
    # First and best keep what was trained only: the weights come from the seed.
    assert all(key.endswith(".scores") for key in trained(folder, "best"))


def test_the_effect_on_real_digits(tmp_path: Path) -> None:
    """Inside a random network at chance lies a subnetwork that classifies, though no weight was trained."""
    config = small(tmp_path, epochs=6, batch_size=64)
    config.data, config.model.width = Data(name=DataName.digits), 0.5
    result = execute(config, QUIET).result
    assert result is not None
    assert result["untrained"]["unpruned"]["top1"] < 0.3
    assert result["untrained"]["first_mask"]["top1"] < 0.3
    assert result["last"]["test"]["top1"] > 0.85


def test_dense_trains_weights_and_random_trains_nothing(undisturbed: Callable[[str], Path]) -> None:
    dense, random = (record.read_result(undisturbed(method)) for method in ("dense", "random"))
    assert dense is not None
    assert random is not None
    assert dense["density"] == 1.0
    assert dense["untrained"]["first_mask"] is None
    assert all(key.endswith(".weight") for key in trained(undisturbed("dense")))
    assert random["last"]["epoch"] == 0
    assert random["last"] == random["best"]
    assert random["last"]["test"] == random["untrained"]["first_mask"]
    assert len(record.read_rows(undisturbed("random"))) == 1


@pytest.mark.parametrize("method", ["edge_popup", "dense"])
@pytest.mark.parametrize("steps", [[1], [5], [7, 1, 3], [14]], ids=str)
def test_goes_on_bit_for_bit(method: str, steps: list[int], tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    config = small(tmp_path, method)
    for count in steps:
        interrupt(config, count)
    outcome = execute(config, QUIET)
    assert outcome.state == "done"
    assert_same_run(outcome.folder, undisturbed(method))


def test_checkpoints_of_every_second_epoch(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    """Kept over interruptions and the commit; they are no part of what a run is."""
    config = small(tmp_path, epochs=5)
    config.checkpoint.every = 2
    interrupt(config, 17)  # in the fourth epoch
    folder = execute(config, QUIET).folder
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"first.ckpt", "best.ckpt", "last.ckpt", "epoch_2.ckpt", "epoch_4.ckpt"}
    assert folder.name == folder_name(small(tmp_path, epochs=5))
    whole = small(tmp_path / "whole", epochs=5)
    whole.checkpoint.every = 1
    other = execute(whole, QUIET).folder
    for epoch in (2, 4):
        a, b = (trained(each, f"epoch_{epoch}") for each in (folder, other))
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert all(
        torch.equal(a, b) for a, b in zip(trained(other, "epoch_5").values(), trained(other).values(), strict=True)
    )
    weights = [hidden_subnet.load(folder, which).get_submodule("conv1").weight for which in (2, 4)]
    assert not torch.equal(weights[0], weights[1])
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of epoch 3; it has first, best, last, 2, 4"):
        hidden_subnet.load(folder, 3)


def test_adam_goes_on_bit_for_bit(tmp_path: Path) -> None:
    from hidden_subnet.settings import OptimizerName

    adam = {"optimizer": OptimizerName.adam, "lr": 0.01}
    whole = execute(small(tmp_path / "whole", **adam), QUIET)
    config = small(tmp_path / "broken", **adam)
    interrupt(config, 8)
    assert_same_run(execute(config, QUIET).folder, whole.folder)


def test_position_is_what_makes_it_so(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    """The control: the same checkpoint with its place in the epoch forgotten does not give the same bits."""
    config = small(tmp_path)
    path = interrupt(config, 7) / "checkpoints" / record.RESUME
    checkpoints.save(path, {**checkpoints.load(path), "batch": 0})
    folder = execute(config, QUIET).folder
    assert not all(
        torch.equal(a, b)
        for a, b in zip(trained(folder).values(), trained(undisturbed("edge_popup")).values(), strict=True)
    )


@pytest.mark.parametrize("damage", ["cut", "flip", "both"])
def test_damaged_checkpoint_is_noticed(damage: str, tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    config = small(tmp_path)
    for count in (3, 4):
        newest = interrupt(config, count) / "checkpoints" / record.RESUME
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "both":
        newest.with_name(f"{record.RESUME}.old").write_bytes(b"")
    said: list[str] = []
    outcome = execute(config, Display(QUIET.on_row, QUIET.on_step, said.append))
    assert outcome.state == "done"
    assert "damaged" in said[0]
    assert ("starts anew" if damage == "both" else "goes on from the one before") in said[0]
    assert_same_run(outcome.folder, undisturbed("edge_popup"))


def test_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    checkpoints.save(tmp_path / "x.ckpt", {"trained": Bomb()})
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpoints.load(tmp_path / "x.ckpt")
    assert not (tmp_path / "exploded").exists()


def test_finished_run_is_skipped_and_force_runs_it_anew(tmp_path: Path) -> None:
    config = small(tmp_path, epochs=1)
    first = execute(config, QUIET)
    stamp = (first.folder / record.RESULT).stat().st_mtime_ns
    again = execute(config, QUIET)
    assert (again.state, again.result) == ("skipped", first.result)
    assert (first.folder / record.RESULT).stat().st_mtime_ns == stamp
    config.force = True
    assert execute(config, QUIET).state == "done"
    assert (first.folder / record.RESULT).stat().st_mtime_ns > stamp
    assert [row["epoch"] for row in record.read_rows(first.folder)] == [0, 1]


@pytest.mark.parametrize(("method", "lr"), [("dense", 1e30), ("edge_popup", 1e38)])
def test_diverged_run_fails_and_leaves_its_traceback(method: str, lr: float, tmp_path: Path) -> None:
    config = small(tmp_path, method, lr=lr)
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    assert "diverged" in outcome.message
    assert "Traceback" in (record.working(outcome.folder) / record.ERROR).read_text()
    assert record.read_result(outcome.folder) is None


def test_busy_run_is_left_alone(tmp_path: Path) -> None:
    config = small(tmp_path)
    folder = record.open_folder(config)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from hidden_subnet import claims, owners\n"
         "folder = Path(sys.argv[1]); me = owners.this_process('', 90)\n"
         "claims.take(folder, me, owners.Observer(folder.parent)); print('held', flush=True)\n"
         "sys.stdin.read()", folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    outcome = execute(config, QUIET)
    assert outcome.state == "busy"
    assert f"process {holder.pid}" in outcome.message
    holder.kill()
    holder.wait()
    assert execute(config, QUIET).state == "done"


def test_seeds_are_streams_of_their_own(tmp_path: Path) -> None:
    def outcome(name: str, **seeds: int) -> Outcome:
        config = small(tmp_path / name, epochs=1)
        config.seeds.weights, config.seeds.scores = seeds.get("weights"), seeds.get("scores")
        config.seeds.data, config.seeds.split = seeds.get("data"), seeds.get("split")
        return execute(config, QUIET)

    base = outcome("base")
    assert base.result is not None
    for stream in ("weights", "scores", "data", "split"):
        other = outcome(stream, **{stream: 1})
        assert other.result is not None
        assert (other.result["weights_sha256"] != base.result["weights_sha256"]) == (stream == "weights")
        same_scores = torch.equal(
            trained(base.folder, "first")["conv1.scores"], trained(other.folder, "first")["conv1.scores"]
        )
        assert same_scores == (stream != "scores")
        assert other.result["last"]["test"]["loss"] != base.result["last"]["test"]["loss"]


def test_last_layer_trains_the_last_layer_on_the_random_network(undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed("last_layer")
    result, untrained = record.read_result(folder), record.read_result(undisturbed("edge_popup"))
    assert result is not None
    assert untrained is not None
    assert set(trained(folder)) == {"fc3.weight"}
    assert result["weights_sha256"] == untrained["weights_sha256"]  # the network in which masks are searched
    losses = [row["train/loss"] for row in record.read_rows(folder)[1:]]
    assert losses == sorted(losses, reverse=True)
    assert (result["density"], result["untrained"]["first_mask"]) == (1.0, None)
    first, last = (dict(hidden_subnet.load(folder, which).named_parameters()) for which in ("first", "last"))  # type: ignore[arg-type]
    assert [name for name in first if not torch.equal(first[name], last[name])] == ["fc3.weight"]


@pytest.mark.parametrize("method", ["edge_popup", "dense", "random", "last_layer"])
@pytest.mark.parametrize("which", ["last", "best"])
def test_load_has_the_recorded_accuracy(method: str, which: Any, undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed(method)
    model = hidden_subnet.load(folder, which)
    assert all(type(layer).__module__.startswith("torch.nn") for layer in model.modules())
    result = record.read_result(folder)
    assert result is not None
    images, labels = hidden_subnet.test_images(folder)
    accuracy = (model(images).argmax(dim=1) == labels).double().mean().item()
    assert accuracy == result[which]["test"]["top1"]
    if method in ("edge_popup", "random"):
        kept = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
        assert kept == result["kept"]


@pytest.mark.slow
def test_exported_file_needs_torch_only(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    path = export(undisturbed("edge_popup"), "last", tmp_path / "subnetwork.pt")
    code = (
        "import sys, json, torch; model = torch.load(sys.argv[1], weights_only=False);"
        "assert not any(name.startswith('hidden_subnet') for name in sys.modules);"
        "print(json.dumps(model(torch.ones(1, 1, 8, 8)).tolist()))"
    )
    said = subprocess.run([sys.executable, "-c", code, path], cwd=tmp_path, capture_output=True, text=True, check=True)
    with torch.no_grad():
        expected = hidden_subnet.load(undisturbed("edge_popup"))(torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(torch.tensor(json.loads(said.stdout)), expected)


def test_an_edited_config_is_not_taken_for_the_run(tmp_path: Path) -> None:
    config = small(tmp_path)
    folder = record.open_folder(config)
    record.write_config(folder, config)
    settings = folder / record.CONFIG
    settings.write_text(settings.read_text().replace("prune_rate: 0.5", "prune_rate: 0.6"))
    with pytest.raises(ValueError, match="does not describe"):
        execute(config, QUIET)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_damaged_result_is_named_and_force_mends_it(content: str, tmp_path: Path) -> None:
    config = small(tmp_path, "random")
    path = execute(config, QUIET).folder / record.RESULT
    whole = path.read_text()
    path.write_text(content)
    with pytest.raises(ValueError, match=r"result.json is damaged"):
        execute(config, QUIET)
    config.force = True
    assert execute(config, QUIET).state == "done"
    assert json.loads(path.read_text())["last"] == json.loads(whole)["last"]
    assert len(record.read_rows(path.parent)) == 1


def test_skipping_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    config = small(tmp_path, "random")
    settings = execute(config, QUIET).folder / record.CONFIG
    before = settings.read_text()
    assert f"root: {Path('data').absolute()}" in before  # the same from any directory
    config.data.root, config.train.threads = "/elsewhere", 2
    assert execute(config, QUIET).state == "skipped"
    assert settings.read_text() == before


def test_frozen_stays_frozen(tmp_path: Path) -> None:
    """The network of a finished run still has the weights of its seed: `load` compares their digest."""
    outcome = execute(small(tmp_path), QUIET)
    model = hidden_subnet.load(outcome.folder)
    values = torch.cat([p.flatten() for p in model.parameters() if p.ndim == 4 and p.shape[1] == 8]).unique()
    assert values.numel() == 3  # -std, 0, +std of the signed constant
    assert values[0] == -values[2]
