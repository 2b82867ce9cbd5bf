"""The parts of a network that move under each method, with each model, init and allocation; no step waits for a GPU."""

import itertools
from dataclasses import replace

import pytest
import torch
from helpers.methods import batch, config_of, network_of, take_step, trainer_of, values
from torch import nn

from hidden_subnet.config.registries import ALLOCATIONS, INITS, METHODS
from hidden_subnet.config.settings import Config, Masking, Model, Norm, Train
from hidden_subnet.masks.layers import masked_layers, not_masked
from hidden_subnet.masks.state import current_masks
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.methods.apply import apply_method, last_layer
from hidden_subnet.methods.base import Method
from hidden_subnet.models.inits import dense_layers, fill
from hidden_subnet.models.networks import build
from hidden_subnet.models.sizes import NAMES, has_norm
from hidden_subnet.training.metrics import evaluate
from hidden_subnet.training.trainer import Trainer

NEXT_INIT = itertools.cycle(INITS)


@pytest.mark.parametrize(
    ("method_name", "pruning", "model", "init"),
    [
        (method, pruning, model, next(NEXT_INIT))
        for model in ("fc", "conv2", "conv4", "conv6", "conv8", "cifar_resnet18")
        for pruning in ALLOCATIONS
        for method in METHODS
        if pruning in ("layerwise", "global") or method == "edge_popup"  # the others differ in K of a layer only
    ],
)
def test_every_method_and_pruning_runs_and_moves_what_it_may(
    method_name: str, pruning: str, model: str, init: str
) -> None:
    network, method = network_of(config_of(method_name, pruning, model, init))
    scores, weights = ({f"{path}.{name}" for path, _ in masked_layers(network)} for name in ("scores", "weight"))
    before, first = values(network), evaluate(network, [batch()], "cpu")
    known = {
        "edge_popup": scores,
        "sampled": scores,
        "dense": set(before),
        "random": set(),
        "random_trained": weights,
        "dnw": scores,
        "warmup_then_prune": weights,
        "last_layer": {list(before)[-1]},
        **dict.fromkeys(("finetune", "magnitude", "imp", "snip", "grasp", "synflow"), weights),
    }
    by_trait = {"scores": scores, "weights": set(before), "both": scores | weights, "nothing": set[str]()}
    moves = known.get(method_name, by_trait[METHODS[method_name].trains])  # also of a method that was added
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert trained == (scores | weights if method_name == "warmup_then_prune" else moves)
    if trained:
        trainer = trainer_of(network, method)
        method.on_epoch_start(0)
        for _ in range(2):
            take_step(trainer)
    method.on_evaluation(1)
    assert evaluate(network, [batch()], "cpu").loss >= 0  # and so not nan
    after = values(network)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed <= (set(before) if method.changes_weights else moves)
    assert bool(changed) == bool(trained)
    masks = current_masks(network)
    if method_name in ("edge_popup", "random", "random_trained", "dnw"):
        total = sum(int(mask.count_nonzero()) for mask in masks.values())
        if pruning != "layerwise":
            assert total == kept_count(sum(mask.numel() for mask in masks.values()), 0.5)
        else:
            assert all(int(mask.count_nonzero()) == kept_count(mask.numel(), 0.5) for mask in masks.values())
    if method_name == "random":
        assert evaluate(network, [batch()], "cpu") == first


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("model", [name for name in NAMES if not has_norm(name)])
@pytest.mark.parametrize("method_name", ["edge_popup", "random", "dense"])  # the others: above
def test_every_model_and_init_runs_one_batch(model: str, method_name: str, init: str) -> None:
    network, method = network_of(config_of(method_name, model=model, init=init))
    before = values(network)
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    if trained:
        trainer = trainer_of(network, method, momentum=0.0, weight_decay=0.0)
        take_step(trainer)
        assert trainer.metrics.totals[3] == 20
    assert evaluate(network, [batch()], "cpu").loss > 0  # and so not nan
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    masked = {f"{path}.scores" for path, _ in masked_layers(network)}
    assert trained == {"edge_popup": masked, "random": set(), "dense": set(before)}[method_name]
    # Equal weights of the deepest networks may leave single layers without a gradient, but never all of them.
    assert changed <= trained
    assert bool(changed) == bool(trained)


@pytest.mark.parametrize("pruning", ALLOCATIONS)
@pytest.mark.parametrize(
    "method_name", [name for name, kind in METHODS.items() if kind.is_trained() and name != "sampled"]
)
def test_a_step_never_reads_from_the_device(method_name: str, pruning: str) -> None:
    """Tensors on torch's meta device have no values: whatever waits for one (item, nonzero, a branch) raises."""
    network = build("conv2", 0.25, (1, 8, 8), 10).to("meta")
    method = apply_method(network, config_of(method_name, pruning))
    images, labels = torch.empty(4, 1, 8, 8, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    trainer = Trainer(network, method, Train(label_smoothing=0.1), "meta")
    for trainer.state.epoch in (0, 8):  # on both sides of a warm-up
        trainer.train_epoch([(images, labels)] * 2)
    assert trainer.state.step == 4


def test_the_first_and_the_last_layer_can_stay_dense() -> None:
    network = build("conv2", 0.25, (1, 8, 8), 10)
    assert dense_layers(network, Model(name="conv2")) == set()
    assert dense_layers(network, Model(name="conv2", first_layer=Masking.dense)) == {"conv1"}
    assert dense_layers(network, Model(name="conv2", last_layer=Masking.dense)) == {"fc3"}
    assert last_layer(network) is network.get_submodule("fc3")


def test_the_first_scores_follow_the_stream_of_the_method() -> None:
    """The mask of `random` is not the one with which a search of the same seed begins."""
    scores = {}
    for name in ("edge_popup", "random", "random_trained", "dnw"):
        network = build("fc", 0.1, (1, 8, 8), 10)
        fill(network, "kaiming_normal", "fan_in", 1.0, seed=0)
        apply_method(network, config_of(name, model="fc"))
        [(_, layer), *_] = masked_layers(network)
        scores[name] = layer.scores.detach()
        assert torch.equal(layer.scores, layer.weight) == (name == "dnw")
    assert torch.equal(scores["random"], scores["random_trained"])
    assert not torch.equal(scores["random"], scores["edge_popup"])


# What is not masked: norm layers, biases, layers that stay dense


WITH_MORE = Model(name="cifar_resnet18", norm=Norm.batch, first_layer=Masking.dense, last_layer=Masking.dense)
TRAINS_UNMASKED = {
    "edge_popup": False,
    "sampled": False,
    "random": False,
    "random_trained": True,
    "dnw": True,
    "warmup_then_prune": True,
    "dense": True,
    "last_layer": False,
}


def network_with_more(config: Config) -> tuple[nn.Module, Method]:
    network = build("cifar_resnet18", 1 / 16, (1, 16, 16), 10, affine=True)
    fill(network, "kaiming_normal", "fan_in", 1.0, seed=0)
    return network, apply_method(network, config)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_masked_trains_where_the_weights_train(name: str) -> None:
    config = replace(config_of(name, model="cifar_resnet18"), model=WITH_MORE)
    network, method = network_with_more(config)
    unmasked = {"stem.weight", "stem_norm.weight", "stem_norm.bias", "stage4.1.body.norm2.weight", "fc.weight"}
    assert unmasked <= not_masked(network).keys()
    first = values(network)
    if method.is_trained():
        trainer = trainer_of(network, method)
        method.on_epoch_start(0)
        for _ in range(2):
            take_step(trainer)
    moved = {each for each in unmasked if not torch.equal(values(network)[each], first[each])}
    expected = TRAINS_UNMASKED.get(name, METHODS[name].trains_weights())  # also of a method that was added
    assert moved == ({"fc.weight"} if name == "last_layer" else unmasked if expected else set())
    if name == "warmup_then_prune":  # in the search phase all of it is frozen with the weights
        searching = values(network)
        method.on_epoch_start(method.dense_epochs(config.method))
        take_step(trainer)
        after = values(network)
        assert {each for each in after if not torch.equal(after[each], searching[each])} == {
            f"{path}.scores" for path, _ in masked_layers(network)
        }


@pytest.mark.parametrize("name", ["random_trained", "dnw", "warmup_then_prune"])
def test_a_method_that_trains_weights_and_removes_none_is_dense(name: str) -> None:
    states = []
    for each in ("dense", name):
        config = replace(config_of(each, model="cifar_resnet18", prune_rate=0.0), model=WITH_MORE)
        network, method = network_with_more(config)
        trainer = trainer_of(network, method)
        method.on_epoch_start(0)
        for _ in range(2):
            take_step(trainer)
        masked = dict(masked_layers(network))
        weights = {path: layer.scores if name == "dnw" else layer.weight for path, layer in masked.items()}
        states.append(dict(network.named_parameters()) | {f"{path}.weight": value for path, value in weights.items()})
    dense, other = states
    assert all(torch.equal(value, other[path]) for path, value in dense.items())
