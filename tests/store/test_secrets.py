"""Settings that hold a key of a known service are refused in one line that does not repeat it; nothing else is."""

import os
from pathlib import Path

import hydra
import pytest
from helpers.forked_launch import Launch
from helpers.secrets import KINDS

from hidden_subnet.config.convert import register
from hidden_subnet.errors import ConfigError
from hydra_plugins.hidden_subnet.secrets import refuse_secrets, refuse_secrets_in

ROOT = Path(__file__).parents[2]
HEX = "0123456789abcdef0123456789abcdef01234567"
KEY = "wandb_v1_" + 3 * "canary5a1f"

SERVICES = ["W&B", "Hugging Face", "GitHub", "GitHub, fine-grained", "GitLab", "OpenAI", "Stripe", "AWS", "Google"]
SERVICES += ["Slack", "npm", "PyPI", "SendGrid", "JWT", "NVIDIA"]
SECRET = [
    *(f"tracker.tags=[a,{KINDS[service]}]" for service in SERVICES),
    f"api_key={KEY}",
    f"+tracker.apiKey={KEY}",
    f"hydra.job.env_set.WANDB_API_KEY={KEY}",
    f"hydra.job.env_set.WANDB_API_KEY={HEX}",
    f"+hydra.job.env_set={{WANDB_API_KEY:{HEX}}}",
    f"hydra.launcher.setup=['module load cuda','export WANDB_API_KEY={HEX}']",
    f"hydra.sweeper.storage=mysql://me:{KEY}@host/db",
    f"seed={KEY},1",
    KEY,
    f"{KEY}=1",
]

HARMLESS = [
    f"tracker.tags=[{HEX}]",
    f"tracker.tags=[{HEX[:12]},v1-{HEX}]",
    f"pretrained_sha256={HEX}{HEX[:24]}",
    f"tracker.project={HEX}",
    "tracker.tags=[tokenizer]",
    "tracker.tags=['tokenizer:bpe','max_tokens=5']",
    "tracker.tags=[sk-learn-baseline-v2-with-seed3-and-more,hf_transformers,glu-variant-of-the-activation]",
    "tracker.entity=secretive-lab",
    "tracker.project=keys",
    f"out=/scratch/{HEX}/runs",
    "data.root=/data/tokens",
    "prune_rate=range(0.1,1.0,0.1)",
    "hydra.launcher.setup=['export WANDB_API_KEY=$(cat ~/.wandb)']",
    "hydra.job.env_set.WANDB_API_KEY=${oc.env:WANDB_API_KEY}",
    "hydra.job.env_copy=[PATH]",
    "hydra.sweeper.storage=sqlite:///study.db",
    "hydra.sweeper.storage=${oc.env:STUDY_STORAGE}",
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
    for key in (KEY, HEX, *KINDS.values()):
        assert key not in line


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
                hydra.compose(
                    "config", [*overrides, f"+hydra.job.env_set.WANDB_API_KEY={HEX}"], return_hydra_config=True
                )
            )


@pytest.mark.parametrize(
    "arguments",
    [
        [f"+foo={KEY}"],
        ["-m", "seed=0,1", f"hydra.launcher.setup=[export WANDB_API_KEY={KEY}]"],
        ["-m", "prune_rate=0.1,1.5", f"++hydra.job.env_set.WANDB_API_KEY={KEY}"],
    ],
)
def test_the_command_refuses_before_anything_is_written(launch: Launch, tmp_path: Path, arguments: list[str]) -> None:
    said = launch(tmp_path, *arguments, HYDRA_FULL_ERROR="1")  # a traceback would show what Hydra was given
    assert said.returncode == 1
    assert len(said.stderr.splitlines()) == 1
    assert said.stderr.startswith("error: ")
    assert KEY not in said.stdout + said.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "preset",
    [
        f"hydra: {{job: {{env_set: {{WANDB_API_KEY: {KEY}}}}}}}\ngrids: [{{seed: [0, 1]}}]\n",
        f"grids:\n  - seed: [0, 1]\n    hydra.job.env_set.WANDB_API_KEY: {KEY}\n",
    ],
)
@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_a_preset_with_a_secret_is_refused(launch: Launch, tmp_path: Path, preset: str, launcher: str) -> None:
    project, cwd = tmp_path / "project", tmp_path / "cwd"
    project.mkdir()
    cwd.mkdir()
    script = f"from pathlib import Path\nfrom hidden_subnet.cli.launch import main\nmain(Path({str(project)!r}))\n"
    (project / "launch.py").write_text(script)
    (project / "conf").symlink_to(ROOT / "conf")
    (project / "sweeps").mkdir()
    (project / "sweeps" / "leak.yaml").write_text(preset)
    arguments = ["sweep=leak", f"hydra/launcher={launcher}", "tracker=none"]
    said = launch(cwd, *arguments, script=project / "launch.py", HYDRA_FULL_ERROR="1")
    assert said.returncode == 1
    assert "WANDB_API_KEY: looks like a secret" in said.stderr
    assert KEY not in said.stdout + said.stderr
    assert os.listdir(cwd) == []
