"""What looks like a secret is refused in one line that does not repeat it; what only sounds like one is not."""

import os
from pathlib import Path

import hydra
import pytest
from forked_launch import Launch

from hidden_subnet.check import ConfigError
from hidden_subnet.config import register
from hydra_plugins.hidden_subnet.secrets import refuse_secrets, refuse_secrets_in

ROOT = Path(__file__).parents[1]
CANARY = "canary5a1f"
HEX = "0123456789abcdef0123456789abcdef01234567"

SECRET = [
    f"api_key={CANARY}",
    f"wandb.api-key={CANARY}",
    f"+tracker.apiKey={CANARY}",
    f"+wandb_key={CANARY}",
    f"++wandb.key={CANARY}",
    f"tracker.token={CANARY}",
    f"HF_TOKEN={CANARY}",
    f"+client_secret={CANARY}",
    f"db_password='{CANARY}'",
    f"hydra.job.env_set.WANDB_API_KEY={CANARY}",
    f"+hydra.job.env_set={{WANDB_API_KEY:{CANARY}}}",
    "hydra.job.env_copy=[PATH,WANDB_API_KEY]",
    f"hydra.launcher.setup=[export WANDB_API_KEY={CANARY}]",
    f"hydra.launcher.setup=['module load cuda','export WANDB_API_KEY={CANARY}']",
    f"hydra.sweeper.storage=mysql://me:{CANARY}@host/db",
    f"tracker.project={HEX}",
    f"tracker.tags=[a,{HEX}]",
    f"seed={HEX},1",
    HEX,
    f"{HEX}=1",
    f"tracker.entity=wandb_v1_{CANARY}{CANARY}{CANARY}",
]

HARMLESS = [
    "tracker.tags=[tokenizer]",
    "tracker.tags=['tokenizer:bpe','max_tokens=5']",
    "tracker.entity=secretive-lab",
    "tracker.project=keys",
    "tracker.tags=[0123456789ab]",
    "out=runs/keyboard",
    f"out=/scratch/{HEX}/runs",
    "data.root=/data/tokens",
    "seed=1,2",
    "prune_rate=range(0.1,1.0,0.1)",
    "hydra.launcher.setup=[module load cuda,export OMP_NUM_THREADS=1]",
    "hydra.launcher.setup=['export WANDB_API_KEY=$(cat ~/.wandb)']",
    "hydra.job.env_set.WANDB_API_KEY=${oc.env:WANDB_API_KEY}",
    "hydra.job.env_copy=[PATH]",
    "hydra.sweeper.storage=sqlite:///study.db",
    "hydra.sweeper.storage=${oc.env:STUDY_STORAGE}",
    "hydra.launcher.additional_parameters={mail-type:END}",
    "-m",
    "--cfg",
    "~tracker",
]


@pytest.mark.parametrize("argument", SECRET)
def test_secrets_are_refused_and_not_repeated(argument: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_secrets(["-m", argument])
    line = str(caught.value)
    assert "\n" not in line
    assert "WANDB_API_KEY" in line
    assert "wandb login" in line
    assert CANARY not in line
    assert HEX not in line


@pytest.mark.parametrize("argument", HARMLESS)
def test_what_only_sounds_like_a_secret_is_not_refused(argument: str) -> None:
    refuse_secrets([argument])


# Hydra's own settings: names like hydra.job.config.override_dirname.exclude_keys are among them.
@pytest.mark.parametrize("launcher", ["basic", "local", "submitit_local", "submitit_slurm", "joblib"])
def test_nothing_that_is_composed_as_shipped_is_refused(launcher: str) -> None:
    register(ROOT / "sweeps")
    overrides = ["sweep=prune_rates", f"hydra/launcher={launcher}"]
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        refuse_secrets_in(hydra.compose("config", overrides, return_hydra_config=True))
        with pytest.raises(ConfigError, match=r"hydra\.job\.env_set\.WANDB_API_KEY"):
            refuse_secrets_in(
                hydra.compose("config", [*overrides, "+hydra.job.env_set.WANDB_API_KEY=abc"], return_hydra_config=True)
            )


@pytest.mark.parametrize(
    "arguments",
    [
        [f"+wandb_key={CANARY}"],
        ["-m", "seed=0,1", f"hydra.launcher.setup=[export WANDB_API_KEY={CANARY}]"],
        ["-m", "prune_rate=0.1,1.5", f"++hydra.job.env_set.WANDB_API_KEY={CANARY}"],
    ],
)
def test_the_command_refuses_before_anything_is_written(launch: Launch, tmp_path: Path, arguments: list[str]) -> None:
    said = launch(tmp_path, *arguments, HYDRA_FULL_ERROR="1")  # a traceback would show what Hydra was given
    assert said.returncode == 1
    assert len(said.stderr.splitlines()) == 1
    assert said.stderr.startswith("error: ")
    assert CANARY not in said.stdout + said.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "preset",
    [
        f"hydra: {{job: {{env_set: {{WANDB_API_KEY: {CANARY}}}}}}}\ngrids: [{{seed: [0, 1]}}]\n",
        f"grids:\n  - seed: [0, 1]\n    hydra.job.env_set.WANDB_API_KEY: {CANARY}\n",
    ],
)
@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_a_preset_with_a_secret_is_refused(launch: Launch, tmp_path: Path, preset: str, launcher: str) -> None:
    project, cwd = tmp_path / "project", tmp_path / "cwd"
    project.mkdir()
    cwd.mkdir()
    (project / "launch.py").write_text((ROOT / "launch.py").read_text())
    (project / "conf").symlink_to(ROOT / "conf")
    (project / "sweeps").mkdir()
    (project / "sweeps" / "leak.yaml").write_text(preset)
    arguments = ["sweep=leak", f"hydra/launcher={launcher}", "tracker=none"]
    said = launch(cwd, *arguments, script=project / "launch.py", HYDRA_FULL_ERROR="1")
    assert said.returncode == 1
    assert "WANDB_API_KEY: looks like a secret" in said.stderr
    assert CANARY not in said.stdout + said.stderr
    assert os.listdir(cwd) == []
