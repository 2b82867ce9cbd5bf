"""A whole run: what it records, that it resumes bit for bit, and that a finished one is not run again."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import QUIET, assert_same_run, interrupt, small, tensor_byte, trained

import hidden_subnet
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Data, Model, Pruning
from hidden_subnet.store import checkpoints, files
from hidden_subnet.sweep.execute import Outcome, RunObserver, execute


def test_what_a_run_records(undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed("edge_popup")
    result = files.read_result(folder)
    assert result is not None
    rows = files.read_rows(folder)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["step"] for row in rows] == [0, 5, 10, 15]  # 461 images: the last batch of 61 is kept
    layers = [layer["name"] for layer in result["layers"]]
    assert rows[1].keys() == {
        "epoch", "step", "lr", "train/loss", "train/top1", "train/top5", "validation/loss", "validation/top1",
        "validation/top5", "density", "density_all", "flip_rate", "seconds", "images_per_second",
        *(f"density/{name}" for name in layers), *(f"flip_rate/{name}" for name in layers),
    }  # fmt: skip
    assert result["chance"] == 13 / 128  # the share of the largest class of the test images
    assert result["last"]["epoch"] == 3
    assert result["weights"] == 6_088 == result["parameters"]
    assert result["kept"] == sum(layer["kept"] for layer in result["layers"]) == 3_044
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"first.ckpt", "best.ckpt", "last.ckpt"}
    # First and best keep what was trained only: the weights come from the seed.
    assert all(key.endswith(".scores") for key in trained(folder, "best"))


def test_the_effect_on_real_digits(tmp_path: Path) -> None:
    """Inside a random network at chance lies a subnetwork that classifies, though no weight was trained."""
    config = small(tmp_path, epochs=6, batch_size=64)
    config.data, config.model.width = Data(name="digits"), 0.5
    result = execute(config, QUIET).result
    assert result is not None
    assert result["untrained"]["unpruned"]["top1"] < 0.3
    assert result["untrained"]["first_mask"]["top1"] < 0.3
    assert result["last"]["test"]["top1"] > 0.85


def test_dense_trains_weights_and_random_trains_nothing(undisturbed: Callable[[str], Path]) -> None:
    dense, random = (files.read_result(undisturbed(method)) for method in ("dense", "random"))
    assert dense is not None
    assert random is not None
    assert dense["density"] == 1.0
    assert dense["untrained"]["first_mask"] is None
    assert all(key.endswith(".weight") for key in trained(undisturbed("dense")))
    assert random["last"]["epoch"] == 0
    assert random["last"] == random["best"]
    assert random["last"]["test"] == random["untrained"]["first_mask"]
    assert len(files.read_rows(undisturbed("random"))) == 1


@pytest.mark.parametrize("method", ["edge_popup", "dense"])
@pytest.mark.parametrize("steps", [[1], [5], [7, 1, 3], [14]], ids=str)
def test_resumes_bit_for_bit(method: str, steps: list[int], tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
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


@pytest.mark.parametrize("validation", [0.0, 0.1])
def test_a_checkpoint_kept_at_an_epoch_has_the_statistics_that_the_last_one_would_have(
    validation: float, tmp_path: Path
) -> None:
    def folder(epochs: int) -> Path:
        config = small(tmp_path / str(epochs), epochs=epochs, norm_batches=2, schedule="constant")
        config.model, config.data.validation = Model(name="cifar_resnet18", width=1 / 16), validation
        config.checkpoint.every = 1
        return execute(config, QUIET).folder

    kept, last = trained(folder(2), "epoch_1"), trained(folder(1))
    assert kept.keys() == last.keys()
    assert all(torch.equal(kept[key], last[key]) for key in last)


def test_untrained_is_measured_at_the_prune_rate_too(tmp_path: Path) -> None:
    """Where the first mask keeps more, since a ramp or a dense phase begins with it."""
    plain = execute(replace(small(tmp_path, epochs=1), prune_rate=0.7), QUIET).result
    ramp = replace(small(tmp_path, epochs=2), prune_rate=0.7, pruning=Pruning(name="layerwise", ramp_epochs=1))
    warmup = replace(small(tmp_path, "warmup_then_prune", epochs=2), prune_rate=0.7)
    warmup = replace(warmup, method=replace(warmup.method, weight_epochs=1))
    assert plain is not None
    assert plain["untrained"].keys() == {"unpruned", "first_mask"}
    for config in (ramp, warmup):
        interrupt(config, 2)
        outcome = execute(config, QUIET)
        assert outcome.result is not None
        assert outcome.result["untrained"] == {
            "unpruned": plain["untrained"]["unpruned"],
            "first_mask": plain["untrained"]["unpruned"],  # at first, nothing is removed
            "at_prune_rate": plain["untrained"]["first_mask"],
        }
        assert files.read_rows(outcome.folder)[0]["density"] == 1


def test_adam_resumes_bit_for_bit(tmp_path: Path) -> None:
    adam = {"optimizer": "adam", "lr": 0.01}
    whole = execute(small(tmp_path / "whole", **adam), QUIET)
    config = small(tmp_path / "broken", **adam)
    interrupt(config, 8)
    assert_same_run(execute(config, QUIET).folder, whole.folder)


def test_position_is_what_makes_it_so(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    """The control: the same checkpoint with its place in the epoch forgotten does not give the same bits."""
    config = small(tmp_path)
    path = interrupt(config, 7) / "checkpoints" / files.RESUME
    checkpoints.save(path, {**checkpoints.load(path), "batch": 0})
    folder = execute(config, QUIET).folder
    assert not all(
        torch.equal(a, b)
        for a, b in zip(trained(folder).values(), trained(undisturbed("edge_popup")).values(), strict=True)
    )


@pytest.mark.parametrize("name", [files.RESUME, files.BEST])
def test_a_checkpoint_of_another_run_is_not_resumed_from(name: str, tmp_path: Path) -> None:
    """It has the same random weights and the same place: only its id tells it from the run's own."""
    config = small(tmp_path / "mine")
    mine, theirs = (interrupt(each, 12) / "checkpoints" / name for each in (config, small(tmp_path / "theirs", lr=0.2)))
    own = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    words = f"is of the run with the id {folder_name(small(tmp_path, lr=0.2))[-12:]}, and this run is"
    assert words in outcome.message
    assert outcome.message.endswith("restore it, or run again with force=true")
    (mine.parents[2] / "2" / "checkpoints" / name).write_bytes(own)  # the attempt that was refused
    assert execute(config, QUIET).state == "done"


@pytest.mark.parametrize("damage", ["cut", "flip", "both"])
def test_damaged_checkpoint_is_noticed(damage: str, tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    config = small(tmp_path)
    for count in (3, 4):
        newest = interrupt(config, count) / "checkpoints" / files.RESUME
    content = bytearray(newest.read_bytes())
    content[tensor_byte(newest)] ^= 1
    newest.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "both":
        newest.with_name(f"{files.RESUME}.old").write_bytes(b"")
    said: list[str] = []
    outcome = execute(config, RunObserver(QUIET.on_row, QUIET.on_step, said.append))
    assert outcome.state == "done"
    assert "damaged" in said[0]
    assert ("starts from the beginning" if damage == "both" else "resumes from the one before") in said[0]
    assert_same_run(outcome.folder, undisturbed("edge_popup"))


def test_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    checkpoints.save(tmp_path / "x.ckpt", {"trained": Bomb()})
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpoints.load(tmp_path / "x.ckpt")
    assert not (tmp_path / "exploded").exists()


def test_finished_run_is_skipped_and_force_runs_it_again(tmp_path: Path) -> None:
    config = small(tmp_path, epochs=1)
    first = execute(config, QUIET)
    stamp = (first.folder / files.RESULT).stat().st_mtime_ns
    again = execute(config, QUIET)
    assert (again.state, again.result) == ("skipped", first.result)
    assert (first.folder / files.RESULT).stat().st_mtime_ns == stamp
    config.force = True
    assert execute(config, QUIET).state == "done"
    assert (first.folder / files.RESULT).stat().st_mtime_ns > stamp
    assert [row["epoch"] for row in files.read_rows(first.folder)] == [0, 1]


@pytest.mark.parametrize(("method", "lr"), [("dense", 1e30), ("edge_popup", 1e38)])
def test_diverged_run_fails_and_leaves_its_traceback(method: str, lr: float, tmp_path: Path) -> None:
    config = small(tmp_path, method, lr=lr)
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    assert "diverged" in outcome.message
    assert "Traceback" in (files.working(outcome.folder) / files.ERROR).read_text()
    assert files.read_result(outcome.folder) is None


def test_busy_run_is_left_alone(tmp_path: Path) -> None:
    config = small(tmp_path)
    folder = files.open_folder(config)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; "
         "from hidden_subnet.store import claims, liveness\n"
         "folder = Path(sys.argv[1]); me = liveness.this_process('', 90)\n"
         "claims.acquire(folder, me, liveness.LivenessProbe(folder.parent)); print('held', flush=True)\n"
         "sys.stdin.read()", folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    outcome = execute(config, QUIET)
    assert outcome.state == "busy"
    assert f"process {holder.pid}, since 20" in outcome.message
    assert f"kill {holder.pid}, on " in outcome.message
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
    result, untrained = files.read_result(folder), files.read_result(undisturbed("edge_popup"))
    assert result is not None
    assert untrained is not None
    assert set(trained(folder)) == {"fc3.weight"}
    assert result["weights_sha256"] == untrained["weights_sha256"]  # the network in which masks are searched
    losses = [row["train/loss"] for row in files.read_rows(folder)[1:]]
    assert losses == sorted(losses, reverse=True)
    assert (result["density"], result["untrained"]["first_mask"]) == (1.0, None)
    first, last = (dict(hidden_subnet.load(folder, which).named_parameters()) for which in ("first", "last"))  # type: ignore[arg-type]
    assert [name for name in first if not torch.equal(first[name], last[name])] == ["fc3.weight"]


def test_an_edited_config_is_not_taken_for_the_run(tmp_path: Path) -> None:
    config = small(tmp_path)
    folder = files.open_folder(config)
    files.write_config(folder, config)
    settings = folder / files.CONFIG
    settings.write_text(settings.read_text().replace("prune_rate: 0.5", "prune_rate: 0.6"))
    with pytest.raises(ValueError, match="does not describe"):
        execute(config, QUIET)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_damaged_result_is_named_and_force_mends_it(content: str, tmp_path: Path) -> None:
    config = small(tmp_path, "random")
    path = execute(config, QUIET).folder / files.RESULT
    whole = path.read_text()
    path.write_text(content)
    with pytest.raises(ValueError, match=r"result.json is damaged"):
        execute(config, QUIET)
    config.force = True
    assert execute(config, QUIET).state == "done"
    assert json.loads(path.read_text())["last"] == json.loads(whole)["last"]
    assert len(files.read_rows(path.parent)) == 1


def test_skipping_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    config = small(tmp_path, "random")
    settings = execute(config, QUIET).folder / files.CONFIG
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
