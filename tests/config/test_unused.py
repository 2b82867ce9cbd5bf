"""A setting that changes nothing beside the others is told of in one line."""

from collections.abc import Callable

import pytest

from hidden_subnet.config.settings import Config
from hidden_subnet.config.unused import unused_lines

Compose = Callable[..., Config]


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("method=dense prune_rate=0.9", ["prune_rate=0.9 changes nothing: method=dense has no prune rate"]),
        ("method=dense pruning=global", ["pruning=global changes nothing: method=dense has no prune rate"]),
        ("pruning.floor=0.2", ["pruning.floor=0.2 changes nothing: pruning=layerwise has no floor"]),
        ("pruning=global pruning.floor=0.2", []),
        ("pruning.ramp_epochs=0", []),
        ("train.gamma=0.2", ["train.gamma=0.2 changes nothing: train.schedule=cosine has no milestones"]),
        ("train.optimizer=adam train.momentum=0.5", [
            "train.momentum=0.5 changes nothing: train.optimizer=adam has no momentum",
        ]),
        ("method=random train.lr=0.3 train.device=cpu train.threads=1 train.precision=bf16", [
            "train.lr=0.3 changes nothing: method=random trains nothing",
        ]),
        ("method=random checkpoint.every=2", ["checkpoint.every=2 changes nothing: method=random trains nothing"]),
        ("tracker=tensorboard tracker.tags=[a]", [
            "tracker.tags=[a] changes nothing: no metrics are sent to W&B (tracker=wandb)",
        ]),
        ("tracker=[wandb,tensorboard] tracker.tags=[a]", []),
        ("data.workers=2", ["data.workers=2 changes nothing: the images of data=digits are read at once, into memory"]),
        ("method=sampled method.score_constant=1", [
            "method.score_constant=1 changes nothing: method=sampled does not use it beside its other settings",
        ]),
        ("seed=3 seeds.weights=1 seeds.scores=1 seeds.data=1 seeds.split=1", [
            "seed=3 changes nothing: each stream that the run draws from has a seed of its own (seeds.*)",
        ]),
        ("method=dense seed=3 seeds.weights=1 seeds.data=1 seeds.split=1", [
            "seed=3 changes nothing: each stream that the run draws from has a seed of its own (seeds.*)",
        ]),
        ("method=dense seed=3 seeds.weights=1 seeds.data=1", []),
        ("data.root=elsewhere", [
            "data.root=elsewhere changes nothing: data=digits comes with the installation, and reads no files",
        ]),
        ("data=mnist data.root=elsewhere", []),
        ("data.trust_names=true", [
            "data.trust_names=true changes nothing: only runs on folders of images were known by names",
        ]),
        ("checkpoint.every=16", ["checkpoint.every=16 changes nothing: the last epoch is train.epochs=15"]),
        ("checkpoint.every=15", []),
        ("train.sync_norm=true train.devices=2 train.device=cuda", [
            "train.sync_norm=true changes nothing: model=conv2 has no batch norm",
        ]),
        ("on_error=stop", ["on_error=stop changes nothing: there is one run"]),
        ("prune_rate=0.3 train.lr=0.2 seed=4 out=runs force=true", []),
    ],
)  # fmt: skip
def test_of_a_single_run(compose: Compose, typed: str, lines: list[str]) -> None:
    assert unused_lines([compose(*typed.split())], typed.split()) == lines


def test_of_a_sweep_only_what_no_run_uses(compose: Compose) -> None:
    both = [compose("method=dense"), compose("method=edge_popup", "prune_rate=0.9")]
    assert unused_lines(both, ["method=dense,edge_popup", "prune_rate=0.9"]) == []
    untrained = [compose("method=dense", "seed=1"), compose("method=last_layer", "seed=1")]
    assert unused_lines(untrained, ["prune_rate=0.1,0.2", "seed=1"]) == []
    assert unused_lines(untrained, ["method=dense,last_layer", "prune_rate=0.9", "seed=1"]) == [
        "prune_rate=0.9 changes nothing: method=dense has no prune rate; method=last_layer has no prune rate"
    ]
    assert unused_lines(both, ["method=dense,edge_popup", "on_error=stop"]) == []
