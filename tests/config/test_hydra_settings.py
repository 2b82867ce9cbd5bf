"""Settings of Hydra's own config: each works, or is refused in one line; and what wins over what."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
from helpers.forked_launch import LAUNCH, Launch
from helpers.one_line import assert_one_line
from hydra.conf import HydraConf, JobConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from omegaconf import DictConfig

from hidden_subnet.config.convert import register
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hydra_plugins.hidden_subnet.compose import Composer
from hydra_plugins.hidden_subnet.errors import one_line
from hydra_plugins.hidden_subnet.grid_sweeper import expand, with_params
from hydra_plugins.hidden_subnet.hydra_settings import problems, refuse_per_job
from hydra_plugins.hidden_subnet.hydra_versions import SINCE_1_4
from hydra_plugins.hidden_subnet.local_launcher import LocalLauncher
from hydra_plugins.hidden_subnet.suggestions import minutes

ROOT = Path(__file__).parents[2]
Master = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def master() -> Master:
    """Return what Hydra composes, with its own part: master("prune_rate=0.3", mode=RunMode.MULTIRUN)."""
    register(ROOT / "sweeps")

    def composed(*overrides: str, mode: RunMode = RunMode.RUN) -> DictConfig:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            return loader.load_configuration("config", [f"hydra.mode={mode.name}", *overrides], mode)

    return composed


@pytest.mark.parametrize("mode", RunMode)
def test_our_defaults_have_no_problems(master: Master, mode: RunMode) -> None:
    assert list(problems(master(mode=mode))) == []


def test_what_is_written_as_it_is_already_is_no_problem(master: Master) -> None:
    same = ["hydra.sweep.dir=${out}", "hydra.run.dir=.", "hydra.job.chdir=false", "hydra.output_subdir=null"]
    assert list(problems(master(*same, "hydra/launcher=local"))) == []


RUN, SWEEP = RunMode.RUN, RunMode.MULTIRUN


@pytest.mark.parametrize(
    ("mode", "override", "line"),
    [
        (RUN, "hydra.run.dir=a/b", "results are written to `out`; type: out=a/b"),
        (SWEEP, "hydra.sweep.dir=a", "results are written to `out`; type: out=a"),
        (SWEEP, "hydra.sweep.subdir=${hydra.job.num}", "named after its settings"),
        (RUN, "hydra.output_subdir=.hydra", "config.yaml"),
        (SWEEP, "hydra.job.chdir=true", "stay in the folder"),
        (RUN, "hydra.job.name=mine", "tracker.tags"),
        (RUN, "+hydra.job.num=3", "Hydra fills this in itself"),
        (RUN, "++hydra.runtime.cwd=/", "Hydra fills this in itself"),
        (SWEEP, "hydra.overrides.task=['seed=1']", "Hydra fills this in itself"),
        (RUN, "hydra.help.template=a", "no effect on --help"),
        (RUN, "hydra.verbose=true", "hydra/job_logging=stdout"),
        (RUN, "hydra/launcher=basic", "add -m, or choose hydra/launcher=local; type: -m hydra/launcher=basic"),
        (RUN, "hydra.launcher.workers=2", "add -m; type: -m hydra.launcher.workers=2"),
        (RUN, "hydra/sweeper=basic", "add -m"),
        (RUN, "+hydra.sweeper.params.seed='0,1'", "add -m"),
        (RUN, "sweep=smoke", "hydra.mode=RUN"),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_refused(master: Master, mode: RunMode, override: str, line: str) -> None:
    found = next(problems(master(override, mode=mode)))
    assert line in found
    assert re.match(r"hydra[./]\w+", found.lstrip("+"))
    words = shlex.split(found.rpartition("; type: ")[2])
    if words[:2] == ["python", "launch.py"]:  # the command without it
        assert override not in words or override == "sweep=smoke"
        words = words[2:]
    again = [word for word in words if word != "-m"]
    assert list(problems(master(*again, mode=SWEEP if "-m" in words or "sweep=smoke" in words else mode))) == []


def test_combinations_of_a_preset_are_for_our_sweeper(master: Master) -> None:
    [found] = problems(master("sweep=smoke", "hydra/sweeper=basic", mode=SWEEP))
    assert found.startswith("hydra/sweeper=basic: the combinations of a preset")


@pytest.mark.parametrize(
    "overrides",
    [
        ["hydra.verbose=true", "hydra/job_logging=stdout"],
        ["hydra.verbose=[hydra]", "hydra/hydra_logging=default"],
        ["+hydra.job.env_set.A=1"],
        ["hydra.job.config.override_dirname.kv_sep=-"],
        ["hydra.hydra_help.template=a"],
    ],
)
def test_what_works_is_not_refused(master: Master, overrides: list[str]) -> None:
    assert list(problems(master(*overrides))) == []


def table() -> set[str]:
    """Return the settings in the first column of the table in docs/configuration.md."""
    lines = (ROOT / "docs" / "configuration.md").read_text().partition("## Hydra's own settings")[2].splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(hydra\.[\w.]+)`", row)}


def test_the_table_has_every_setting_of_hydra() -> None:
    job = {f"hydra.job.{field.name}" for field in fields(JobConf)}
    others = {f"hydra.{field.name}" for field in fields(HydraConf)} - {"hydra.job"}
    assert table() == job | others | {"hydra.aliases"}  # which is new in Hydra 1.4


def own(folder: Path, **files: str) -> str:
    """Write files of groups ("train_long" is train/long.yaml) and return the override that adds their folder."""
    for name, text in files.items():
        group, _, option = name.partition("_")
        (folder / group).mkdir(exist_ok=True)
        (folder / group / f"{option}.yaml").write_text(text)
    return f"hydra.searchpath=[file://{folder}]"


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        (["train=long"], 0.2),
        (["train=long", "method=sampled"], 0.2),
        (["train=long", "train.lr=0.3"], 0.3),
        (["train=other", "method=sampled"], 200.0),
        (["method=sampled"], 200.0),
        (["method=mine"], 200.0),
        (["+experiment=mine", "train=long"], 0.4),
        (["+experiment=mine", "train.lr=0.3"], 0.3),
        (["+experiment=train"], 0.2),
    ],
)
def test_what_wins_over_the_learning_rate_of_a_method(
    master: Master, tmp_path: Path, overrides: list[str], rate: float
) -> None:
    given = own(
        tmp_path,
        train_long="lr: 0.2",
        train_other="epochs: 3",
        method_mine="defaults: [sampled]\npenalty: 0.0001\n",
        experiment_mine="# @package _global_\ntrain: {lr: 0.4}",
        experiment_train="# @package _global_\ndefaults: [override /train: long, override /method: dense]",
    )
    assert master(given, *overrides).train.lr == rate


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: sampled\npenalty: 0.1", ["method=mine", "defaults: [sampled]"]),
        ("name: sampled", ["method.name=sampled", "defaults: [sampled]"]),
        ("pennalty: 0.1", ["method.pennalty, in method/mine", "did you mean: method.penalty"]),
    ],
)
def test_an_own_file_of_a_method_names_what_it_changes(
    compose_single: Callable[..., Config], tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  which one is Hydra's affair
        compose_single(own(tmp_path, method_mine=text), "method=mine")
    assert_one_line(caught.value, words)


LAUNCHED = "# @package _global_\ndefaults: [override /hydra/launcher: basic]\nseed: 3"


def test_an_experiment_file_chooses_the_launcher_of_a_sweep_but_not_of_some_of_its_runs(
    master: Master, tmp_path: Path
) -> None:
    given = own(
        tmp_path,
        experiment_a=LAUNCHED,
        experiment_b="# @package _global_\nseed: 4",
        experiment_c="# @package _global_\nhydra: {job: {env_set: {A: b}}}",
    )
    alone = master(given, "+experiment=a", mode=SWEEP)
    assert alone.hydra.runtime.choices["hydra/launcher"] == "basic"
    assert master(given, "+experiment=a", "hydra/launcher=local", mode=SWEEP).hydra.launcher.workers is None
    several = master(given, "+experiment=a,b,c", mode=SWEEP)
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=SimpleNamespace())
    assert Composer(context, alone).compose(["+experiment=a"]).seed == 3
    assert Composer(context, several).compose(["+experiment=b"]).seed == 4
    with pytest.raises(
        ConfigError,
        match=r"^hydra/launcher=basic, set by \+experiment=a: holds for a whole .* type: hydra/launcher=basic$",
    ):
        Composer(context, several).compose(["+experiment=a"])
    with pytest.raises(
        ConfigError, match=r"^hydra\.job\.env_set\.A=b, set by \+experiment=c: .* type: hydra\.job\.env_set\.A=b$"
    ):
        Composer(context, several).compose(["+experiment=c", "seed=1"])


def test_params_of_the_sweeper_are_as_if_typed() -> None:
    parser = OverridesParser.create()
    assert with_params(parser, {"seed": "0,1", "model": "fc"}, ["seed=3"]) == ["model=fc", "seed=3"]
    jobs = expand(parser, with_params(parser, {"seed": "0,1"}, ["model=fc"]), [{}])
    assert jobs == [["seed=0", "model=fc"], ["seed=1", "model=fc"]]


class Starts(Callback):  # type: ignore[misc]
    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None: ...


class Ends(Starts):
    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None: ...


class Sweeps(Callback):  # type: ignore[misc]
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None: ...


def test_what_hydra_does_in_each_job_is_refused_where_jobs_run_without_it(master: Master) -> None:
    hydra = master(mode=SWEEP).hydra
    refuse_per_job(hydra, [Sweeps()])
    for callback in (Starts(), Ends()):
        with pytest.raises(ConfigError, match=r"on_job_start is not called .* type: hydra/launcher=basic"):
            refuse_per_job(hydra, [Sweeps(), callback])
    with pytest.raises(ConfigError, match="hydra/job_logging=stdout: has no effect"):
        refuse_per_job(master("hydra/job_logging=stdout", mode=SWEEP).hydra, [])


def test_the_launcher_sets_the_environment_before_any_process_starts(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = master("+hydra.job.env_set.HIDDEN_SUBNET_TEST=3", mode=SWEEP)
    launcher = LocalLauncher()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        context = HydraContext(
            config_loader=GlobalHydra.instance().config_loader(), callbacks=SimpleNamespace(callbacks=[])
        )
    launcher.setup(hydra_context=context, task_function=lambda config: None, config=config)
    monkeypatch.setenv("HIDDEN_SUBNET_TEST", "1")  # so that it is restored
    seen: list[str] = []

    def run_sweep(*given: object, **named: object) -> tuple[list[object], int]:
        seen.append(os.environ["HIDDEN_SUBNET_TEST"])
        return [], 0

    monkeypatch.setattr("hidden_subnet.cli.sweep.run_sweep", run_sweep)
    launcher.run([], "label")
    assert seen == ["3"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("hydra.run.dir=results", ["type: out=results"]),
        ("-m hydra.sweep.dir=results seed=0,1", ["type: out=results"]),
        ("hydra.output_subdir=.hydra", ["type: python launch.py tracker=none"]),
        ("+hydra.job.env_copy=[HIDDEN_SUBNET_UNSET]", ["HIDDEN_SUBNET_UNSET is not set in the environment"]),
        ("hydra.job.env_set.A=1", ["a new entry is written with a plus, type: +hydra.job.env_set.A=1"]),
        ("-m seed=0,1 hydra/launcher=basic on_error=stop", ["on_error=stop", "hydra/launcher=local"]),
    ],
)
def test_the_command_says_one_line_and_writes_nothing(
    launch: Launch, tmp_path: Path, arguments: str, words: list[str]
) -> None:
    done = launch(tmp_path, *arguments.split(), "tracker=none")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words)
    assert (done.returncode, os.listdir(tmp_path)) == (1, [])


CALLBACKS = """
from pathlib import Path
from hydra.experimental.callback import Callback

class Notes(Callback):
    def note(self, name, job_return=None):
        with open("notes", "a") as file:
            print(name, "" if job_return is None else job_return.status.name, file=file)

class Run(Notes):
    def on_job_end(self, config, job_return, **kwargs): self.note("on_job_end", job_return)
    def on_run_end(self, config, job_return, **kwargs): self.note("on_run_end", job_return)

class Sweep(Notes):
    def on_multirun_end(self, config, **kwargs): self.note("on_multirun_end")

class Both(Run, Sweep): pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "notes"),
    [
        ("", 0, ["on_job_end COMPLETED", "on_run_end COMPLETED"]),
        ("train.lr=1e30", 1, ["on_job_end FAILED", "on_run_end FAILED"]),
        ("evaluate=nothing", 1, ["on_job_end FAILED", "on_run_end FAILED"]),
        ("-m seed=0,1", 0, ["on_multirun_end"]),
        ("-m train.lr=0.1,1e30", 1, ["on_multirun_end"]),
        ("-m train.lr=0.1,-1", 1, []),
        ("-m train.lr=0.1,1e30 hydra/sweeper=optuna", 1, ["on_multirun_end"]),
        (
            "-m train.lr=1e30,0.1 hydra/launcher=basic",
            1,
            ["on_job_end FAILED", "on_job_end COMPLETED", "on_multirun_end"],
        ),
        (
            "-m train.lr=1e30,0.1 hydra/launcher=basic hydra/sweeper=basic",
            1,
            ["on_job_end FAILED", "on_job_end COMPLETED"],
        ),
    ],
)
def test_callbacks_at_the_end_of_what_failed_too(tmp_path: Path, arguments: str, code: int, notes: list[str]) -> None:
    (tmp_path / "mine.py").write_text(CALLBACKS)
    kind = "Both" if "basic" in arguments else "Sweep" if "-m" in arguments else "Run"
    small = ["data=digits", "model=fc", "model.width=0.125", "train.epochs=1", "tracker=none", "method=dense"]
    given = [] if "evaluate" in arguments else small
    command = [sys.executable, str(LAUNCH), f"+hydra.callbacks.mine._target_=mine.{kind}", *given, *arguments.split()]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if "hydra/sweeper" not in arguments:
        assert "Error executing job" not in done.stderr
        assert len(done.stderr.splitlines()) <= 1
    if SINCE_1_4 and "-m" in arguments:  # whatever comes before
        notes = [*(each for each in notes if each != "on_multirun_end"), "on_multirun_end"]
    seen = (tmp_path / "notes").read_text().splitlines() if notes else []
    assert [line.strip() for line in seen] == notes
    assert bool(notes) == (tmp_path / "notes").exists()


def test_files_make_a_command_a_sweep(launch: Launch, tmp_path: Path) -> None:
    """A preset and an experiment file do, also with lists of values beside them, of which a single run has none."""
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    quiet = ["tracker=none", "plan=true", "train.lr=0.1,0.2"]
    for words, runs in ((["sweep=width_at_kept"], 60), (["--config-dir", ".", "+experiment=mine"], 4)):
        said = launch(tmp_path, *words, *quiet)
        assert said.returncode == 0, said.stdout + said.stderr
        assert said.stdout.startswith(f"plan: {runs} runs ")
        assert said.stderr == ""


@pytest.mark.parametrize(
    ("wrong", "rule"), [("python=p", "by the Python that submits them"), ("use_srun=false", "what srun starts")]
)
def test_new_settings_of_slurm_that_workers_cannot_obey(launch: Launch, tmp_path: Path, wrong: str, rule: str) -> None:
    """hydra-submitit-launcher has them since 1.4."""
    name = wrong.partition("=")[0]
    said = launch(tmp_path, "-m", "hydra/launcher=slurm", f"hydra.launcher.{wrong}", "seed=0,1")
    if name in {each.name for each in fields(SlurmQueueConf)}:
        assert rule in said.stderr
        assert said.stderr.endswith("; type: python launch.py -m hydra/launcher=slurm seed=0,1\n")
    else:
        assert said.stderr.startswith(f"error: hydra.launcher.{wrong}: there is no such setting; ")
    assert said.returncode == 1
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.slow
def test_params_in_a_config_and_the_environment_of_a_sweep(tmp_path: Path) -> None:
    """W&B, which would write an offline run, is off in the processes of the runs."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper: {params: {seed: '0,1'}}\n"
        "  job: {env_set: {WANDB_MODE: disabled}}\n"
    )
    small = ["data=digits", "model=fc", "model.width=0.125", "train.epochs=1", "tracker=wandb"]
    command = [sys.executable, str(LAUNCH), "--config-dir", str(tmp_path), "+experiment=mine", *small]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([*tmp_path.glob("runs/*/result.json")]) == 2
    assert [*tmp_path.glob("runs/*/wandb")] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("240", 240), ("4h", 240), ("90m", 90), ("2d", 2880), ("04:00:00", 240), ("00:00:30", 1), ("90:00", 90),
        ("1-12", 2160), ("1-12:30", 2190), ("1-00:00:01", 1441), ("soon", None), ("0", None), ("1:2:3:4", None),
    ],
)  # fmt: skip
def test_a_time_limit_is_read_as_sbatch_reads_it(text: str, found: int | None) -> None:
    assert minutes(text) == found


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["hydra/launcher=slurm", "hydra.launcher.time=04:00:00"], "hydra.launcher.timeout_min=240"),
        (["hydra.launcher.time=04:00:00"], "hydra/launcher=slurm hydra.launcher.timeout_min=240"),
        (["hydra/launcher=slurm", "hydra.launcher.timeout_min=04:00:00"], "hydra.launcher.timeout_min=240"),
    ],
)
def test_a_time_limit_is_answered_with_what_to_type(master: Master, words: list[str], right: str) -> None:
    with pytest.raises(HydraException) as caught:
        master(*words)
    assert one_line(caught.value, words).endswith(f": {right}")
