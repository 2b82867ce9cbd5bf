"""Runs drawn at random (tests/fingerprint/ids.py): their names, whatever is set."""

import json
import re
import subprocess
import sys
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from fingerprint.ids import all_settings
from helpers.leaves import leaves

from hidden_subnet.config.convert import as_dict, from_dict
from hidden_subnet.config.identity import folder_name, projection, slug
from hidden_subnet.config.registries import load_parts
from hidden_subnet.config.settings import (
    Artifacts,
    Checkpoint,
    Claim,
    Config,
    Device,
    Keep,
    OnError,
    Report,
    Tracker,
    TrackerMode,
)

ROOT = Path(__file__).parents[2]

load_parts()


def configs(count: int) -> list[Config]:
    return [from_dict(settings) for settings in islice(all_settings(count), count)]


@pytest.mark.slow
def test_the_names_of_100000_random_runs_and_the_golden_ones_are_as_ever() -> None:
    script = ROOT / "tests" / "fingerprint" / "ids.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


def test_as_many_names_as_different_runs() -> None:
    drawn = configs(300)
    projections = [json.dumps(projection(config), sort_keys=True) for config in drawn]
    ids = [folder_name(config)[-12:] for config in drawn]
    assert len(set(ids)) == len(set(projections)) == len(set(zip(ids, projections, strict=True))) > 225
    for config, id in zip(drawn, ids, strict=True):
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", slug(config))
        assert folder_name(config) == f"{slug(config)}-{id}"
        assert re.fullmatch(r"[0-9a-f]{12}", id)


def test_what_changes_no_result_changes_no_name() -> None:
    for config in configs(100):
        train = replace(
            config.train, device=Device.mps, threads=7, profile=True, cuda_graph=not config.train.cuda_graph
        )
        other = replace(
            config,
            out="x",
            force=True,
            resume_stopped=True,
            stop_collapsed=True,
            stop_collapsed_epoch=7,
            plan=True,
            on_error=OnError.stop,
            pretrained="weights.pt",
            mask="runs/other",
            evaluate="run",
            data=replace(config.data, root="y", workers=5),
            train=train,
            tracker=Tracker(
                to={"wandb": True},
                project="p",
                entity="e",
                mode=TrackerMode.offline,
                tags=["a"],
                artifacts=Artifacts.mask,
            ),
            checkpoint=Checkpoint(minutes=1, every=2, keep=Keep.mask),
            claim=Claim(silent_seconds=10),
            report=Report(run=True, x="lr"),
        )
        assert folder_name(other) == folder_name(config)


def marked_never(kind: Any, prefix: str = "") -> set[str]:
    """Return the dotted names of settings, or of groups of them, that are no part of an id."""
    found = set()
    for field in fields(kind):
        name = f"{prefix}{field.name}"
        if field.metadata["id"] == "never":
            found.add(name)
        elif field.default_factory is not NO_DEFAULT and is_dataclass(made := field.default_factory()):
            found |= marked_never(made, f"{name}.")
    return found


def test_the_random_runs_touch_every_setting_that_is_part_of_an_id() -> None:
    """So that a setting that is added later is not forgotten there."""
    plain = [as_dict(config) for config in configs(400)]
    never = marked_never(Config())

    def value(config: Any, path: str) -> Any:
        for key in path.split("."):
            config = config.get(key) if isinstance(config, dict) else None
        return config

    paths = {path for each in plain for path in leaves(each)}
    part_of_id = {path for path in paths if not {path, path.partition(".")[0]} & never}
    assert len(part_of_id) > 50
    # Of runs on own parts (tests/config/test_own_parts.py); and what was added after 42ebd4d, since the digest of these
    # runs must stay.
    own = {
        "code_digest",
        "metrics",
        "metric",
        "train.clip_norm",
        "train.accumulate",
        "train.norm_affine",
        "train.optimizer_args",
        "data.augment",
        "pruning.ramp",
    }
    own |= {f"pruning.{each}" for each in ("structure", "m", "block", "indivisible", "rates")}
    own |= {"model.activation", "init.attention_scale", "mask_sha256", "extend_sha256"}
    assert {path for path in part_of_id if len({json.dumps(value(config, path)) for config in plain}) == 1} == own
    assert len({config["method"]["name"] for config in plain}) == 8  # a method that was added has no ids to keep
