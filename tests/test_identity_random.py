"""A thousand runs drawn at random: as many names as there are different runs, whatever is set."""

import copy
import json
import random
import re
from enum import Enum
from typing import Any

import pytest
from test_identity import leaves

from hidden_subnet.config import as_dict
from hidden_subnet.identity import folder_name, projection, slug
from hidden_subnet.models.plan import NAMES as MODEL_NAMES
from hidden_subnet.settings import (
    METHODS,
    Checkpoint,
    Claim,
    Config,
    Data,
    DataName,
    Device,
    Evaluation,
    Fan,
    Found,
    Init,
    InitName,
    Library,
    Masking,
    Method,
    Model,
    Norm,
    OnError,
    OptimizerName,
    Precision,
    Pruning,
    PruningName,
    Sampled,
    Scale,
    ScheduleName,
    ScoreInit,
    Seeds,
    Tracker,
    TrackerMode,
    TrackerName,
    Train,
    WarmupThenPrune,
)


def random_method(source: random.Random) -> Method:
    method = METHODS[source.choice(list(METHODS))]()
    if isinstance(method, Sampled):
        method.evaluation = source.choice(list(Evaluation))
        method.score_init = source.choice(list(ScoreInit))
        method.score_constant, method.penalty = source.choice([0.0, 1.0]), source.choice([0.0, 1e-8])
    if isinstance(method, WarmupThenPrune):
        method.weight_epochs = source.choice([3, 6])
    return method


def random_config(source: random.Random) -> Config:
    def one(enum: type[Enum]) -> Any:
        return source.choice(list(enum))

    def maybe_seed() -> int | None:
        return source.choice([None, None, source.randrange(5)])

    return Config(
        model=Model(
            name=source.choice(MODEL_NAMES),
            library=one(Library),
            width=source.choice([1.0, 0.5, source.uniform(0.1, 2)]),
            norm=one(Norm),
            first_layer=one(Masking),
            last_layer=one(Masking),
            temperature=source.choice([1.0, 1.0, 0.5]),
        ),
        init=Init(name=one(InitName), mode=one(Fan), scale=one(Scale)),
        data=Data(
            name=one(DataName),
            root=source.choice(["data", "/d"]),
            validation=source.choice([0.0, 0.1, 0.2]),
            crop=source.choice([0, 2, 4]),
            flip=source.random() < 0.5,
            resized_crop=source.random() < 0.1,
            pad=source.choice([0, 0, 2]),
            size=source.choice([0, 0, 64]),
            resize=source.choice([0, 0, 72]),
            fraction=source.choice([1.0, 1.0, 0.1]),
            one_batch=source.random() < 0.1,
            workers=source.choice([None, 2]),
            found=source.choice(
                [Found(), Found(classes=2, train=9, test=8, digest="a"), Found(classes=3, train=8, test=9, digest="b")]
            ),
        ),
        pruning=Pruning(
            name=one(PruningName),
            floor=source.choice([0.0, 0.1]),
            ramp_epochs=source.choice([0, 3]),
            start_rate=source.choice([0.0, 0.1]),
        ),
        method=random_method(source),
        train=Train(
            epochs=source.choice([1, 15, 100]),
            batch_size=source.choice([32, 64]),
            lr=source.choice([0.1, 0.01, source.uniform(0.001, 1)]),
            optimizer=one(OptimizerName),
            momentum=source.choice([0.0, 0.9]),
            nesterov=source.random() < 0.5,
            weight_decay=source.choice([0.0, 1e-4]),
            norm_decay=source.random() < 0.5,
            schedule=one(ScheduleName),
            warmup_epochs=source.choice([0, 5]),
            milestones=source.choice([[], [3], [3, 7]]),
            gamma=source.choice([0.1, 0.5]),
            label_smoothing=source.choice([0.0, 0.1]),
            norm_batches=source.choice([0, 10]),
            precision=one(Precision),
            devices=source.choice([1, 1, 2]),
            sync_norm=source.random() < 0.1,
            channels_last=source.random() < 0.5,
            compile=source.random() < 0.2,
            cuda_graph=source.random() < 0.2,
            device=one(Device),
            threads=source.choice([None, 1, 2]),
            profile=source.random() < 0.5,
        ),
        checkpoint=Checkpoint(minutes=source.choice([0.0, 5.0]), every=source.choice([0, 1])),
        claim=Claim(silent_seconds=source.choice([10.0, 90.0])),
        plan=source.random() < 0.5,
        on_error=one(OnError),
        tracker=Tracker(name=one(TrackerName), mode=one(TrackerMode), tags=source.choice([[], ["a"]])),
        seeds=Seeds(weights=maybe_seed(), scores=maybe_seed(), data=maybe_seed(), split=maybe_seed()),
        prune_rate=source.choice([0.1, 0.5, 0.9, source.random()]),
        pretrained=source.choice([None, "weights.pt"]),
        pretrained_sha256=source.choice([None, None, "0" * 64]),
        evaluate=source.choice([None, "run"]),
        seed=source.randrange(5),
        out=source.choice(["runs", "/elsewhere"]),
        force=source.random() < 0.5,
    )


@pytest.mark.slow
def test_1000_random_configs() -> None:
    source = random.Random(0)
    configs = [random_config(source) for _ in range(1000)]
    projections = [json.dumps(projection(config), sort_keys=True) for config in configs]
    ids = [folder_name(config)[-12:] for config in configs]
    assert len(set(ids)) == len(set(projections)) == len(set(zip(ids, projections, strict=True))) > 750
    for config in configs:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", slug(config))
    for config in configs[::10]:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}-[0-9a-f]{12}", folder_name(config))
        operational = copy.deepcopy(config)
        operational.out, operational.force, operational.data.root = "x", True, "y"
        operational.data.workers = 5
        operational.train.device, operational.train.threads, operational.train.profile = Device.mps, 7, True
        operational.train.cuda_graph = not config.train.cuda_graph
        operational.tracker, operational.checkpoint = Tracker(name=TrackerName.none), Checkpoint(minutes=1)
        assert folder_name(operational) == folder_name(config)


def test_the_random_configs_touch_every_setting() -> None:
    """So that a setting added later is not forgotten above."""
    source = random.Random(0)
    plain = [as_dict(random_config(source)) for _ in range(200)]

    def values(config: Any, path: str) -> Any:
        for key in path.split("."):
            config = config.get(key) if isinstance(config, dict) else None
        return config

    paths = {path for each in plain for path in leaves(each)}
    fixed = {path for path in paths if len({json.dumps(values(config, path)) for config in plain}) == 1}
    assert fixed == {"tracker.project", "tracker.entity"}
