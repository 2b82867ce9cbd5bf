"""train.compile and train.cuda_graph: faster steps that make the same masks, and the same run when it is resumed."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.runs import QUIET, assert_same_run, interrupt, small, trained
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from hidden_subnet.config import checks
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.registries import ALLOCATIONS, OPTIMIZERS, info_of
from hidden_subnet.config.settings import Config, Device, Library, Model, Precision
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.layers import fill_scores, mask_layers, masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.state import current_masks
from hidden_subnet.masks.topk import topk_mask
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.edge_popup import EdgePopupRule, masked_weight
from hidden_subnet.methods.warmup_then_prune import WarmupThenPruneSettings
from hidden_subnet.models.from_config import random_network
from hidden_subnet.models.inits import fill
from hidden_subnet.models.networks import build
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight
from hidden_subnet.training import acceleration
from hidden_subnet.training.acceleration import compiled, recorded, refuse_compilation, refuse_graph, speed_up

IMAGES = torch.randn((16, 1, 8, 8), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 10


def network_of(config: Config) -> nn.Module:
    network = random_network(config, info_of(config.data), 0)
    speed_up(network, config.train, "cpu")
    apply_method(network, config).on_step_start(0)
    return network.train()


def gradients(network: nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    F.cross_entropy(logits, LABELS).backward()
    return {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


KINDS: list[tuple[str, str, str]] = [
    ("edge_popup", "layerwise", "fp32"),
    ("edge_popup", "layerwise", "bf16"),
    ("edge_popup", "global", "fp32"),
    ("sampled", "layerwise", "fp32"),
    ("dnw", "layerwise", "fp32"),
    ("dense", "layerwise", "fp32"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "pruning", "precision"), KINDS)
def test_compiled_step_has_the_masks_and_gradients_of_the_other(
    method: str, pruning: str, precision: str, tmp_path: Path
) -> None:
    config = small(tmp_path, method)
    config.pruning.name, config.train.precision = pruning, Precision[precision]
    plain, other = network_of(config), network_of(config)
    forward = compiled(other, batch_size=16)  # one graph, or it raises
    expected, logits = plain(IMAGES), forward(IMAGES)
    close = {"fp32": 1e-4, "bf16": 0.1}[precision]
    torch.testing.assert_close(logits, expected, rtol=close, atol=close * float(expected.detach().abs().max()))
    masks = current_masks(other)
    assert all(torch.equal(mask, masks[path]) for path, mask in current_masks(plain).items())
    a, b = gradients(plain, expected), gradients(other, logits)
    assert a.keys() == b.keys()
    for name, gradient in a.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(b[name], gradient, rtol=close, atol=10 * close * size, msg=name)
    assert all(layer.cached_weight is None for _, layer in masked_layers(other))
    assert torch.equal(forward(IMAGES[:3]), other(IMAGES[:3]))  # the last batch is not compiled


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar_resnet18", "resnet50", "vit_b_16", "convnext_tiny"])
def test_networks_are_one_graph(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace them without compiling, which takes minutes."""
    config = small(tmp_path)
    config.data.name = "cifar10"
    config.model = Model(name=name, library=Library.own if "resnet" in name else Library.torchvision)
    network = network_of(config)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    images = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    logits = compiled(network, 2)(images)
    logits.sum().backward()
    assert all(layer.scores.grad is not None for _, layer in masked_layers(network))
    torch.manual_seed(0)
    assert torch.equal(network(images), logits)


def masked_conv2(channels_last: bool) -> nn.Module:
    made = build("conv2", 0.125, (1, 8, 8), 10)
    fill(made, "signed_constant", "fan_in", 1.0, seed=0)
    made.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-overload]
    mask_layers(made)
    for _, layer in masked_layers(made):
        layer.rule = EdgePopupRule(TopKSelection(layer.weight.numel() // 3))
    fill_scores(made, seed=0, stream="scores")
    return made


@pytest.mark.parametrize("channels_last", [False, True], ids=["", "channels_last"])
def test_compiling_a_masked_network_gives_one_graph(channels_last: bool) -> None:
    """Compile it masks and all: the rule is one operation there."""
    plain, other = masked_conv2(channels_last), masked_conv2(channels_last)
    torch.compiler.reset()
    graphs: list[fx.GraphModule] = []

    def compiler(graph: fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    logits = torch.compile(other, fullgraph=True, backend=aot_autograd(fw_compiler=compiler))(IMAGES)
    assert "hidden_subnet.masked_weight" in str(graphs[0].code)
    expected = plain(IMAGES)
    assert torch.equal(logits, expected)
    a, b = gradients(plain, expected), gradients(other, logits)
    assert a.keys() == b.keys() == {f"{path}.scores" for path, _ in masked_layers(plain)}
    assert all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("keep", [1, 5000])
def test_the_operation_keeps_what_torch_asks_of_one(keep: int) -> None:
    scores = torch.randn(5000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(5000)
    torch.library.opcheck(masked_weight, (scores, weight, keep))
    assert torch.equal(masked_weight(scores, weight, keep), weight * topk_mask(scores, keep))


@pytest.mark.slow
def test_compiled_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    def config(out: str) -> Config:
        made = small(tmp_path / out)
        made.train.compile = True
        return made

    whole = execute(config("whole"), QUIET)
    interrupt(config("broken"), 5)
    again = execute(config("broken"), QUIET)
    assert whole.state == again.state == "done"
    assert_same_run(whole.folder, again.folder)
    plain = execute(small(tmp_path / "plain"), QUIET)
    assert plain.folder.name != whole.folder.name  # another rounding is another run
    first = trained(plain.folder, "first")
    assert all(torch.equal(first[key], value) for key, value in trained(whole.folder, "first").items())


def test_network_that_cannot_be_one_graph_is_refused() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(images)
            print(logits.shape)
            return logits if logits.sum().item() > 0 else -logits

    with pytest.raises(ConfigError, match=r"train\.compile=true: torch cannot compile .*type: train\.compile=false$"):
        compiled(Asks(), 3)(torch.ones(3, 4))


def replayed(step: Callable[[], None]) -> Callable[[], None]:
    """Stand in for a CUDA graph, which needs a GPU: `step` is executed at each replay, and not before."""
    return step


def test_whole_batches_after_the_first_are_replayed_from_the_same_memory() -> None:
    seen: list[tuple[int, list[float], list[int]]] = []
    recordings: list[int] = []

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        seen.append((images.data_ptr(), images.tolist(), labels.tolist()))

    def record(given: Callable[[], None]) -> Callable[[], None]:
        recordings.append(len(seen))
        return given

    run = recorded(step, 2, record)
    batches = [torch.tensor([n, n + 0.5]) for n in range(6)]
    for number, images in enumerate(batches):
        run(images, torch.tensor([number, number]))
    run(torch.tensor([9.0]), torch.tensor([9]))
    assert [images for _, images, _ in seen] == [*([n, n + 0.5] for n in range(6)), [9.0]]
    assert [labels for _, _, labels in seen] == [*([n, n] for n in range(6)), [9]]
    assert recordings == [acceleration.FIRST]
    places = [place for place, _, _ in seen]
    assert places[3] == places[4] == places[5]
    assert {places[3]}.isdisjoint(images.data_ptr() for images in batches)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["edge_popup", "dnw", "warmup_then_prune", "random_trained", "dense", "gem_miner"])
@pytest.mark.parametrize("pruning", list(ALLOCATIONS))
def test_a_run_of_replays_is_the_run_without(
    method: str, pruning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "cuda_graph", replayed)

    def config(out: str, graph: bool) -> Config:
        made = small(tmp_path / out, method, batch_size=32, cuda_graph=graph)
        made.pruning.name = pruning
        if isinstance(made.method, WarmupThenPruneSettings):
            made.method.weight_epochs = 1
        elif method == "edge_popup":
            made.pruning.ramp_epochs = 2
        return made

    plain = execute(config("plain", False), QUIET)
    interrupt(config("graph", True), 9)
    graph = execute(config("graph", True), QUIET)
    assert plain.state == graph.state == "done"
    assert plain.folder.name == graph.folder.name
    assert_same_run(plain.folder, graph.folder)


def test_masks_before_an_evaluation_are_those_of_scores_that_a_replay_has_changed(tmp_path: Path) -> None:
    """Write to the scores without counting up their version, as a replay does."""
    config = small(tmp_path)
    config.pruning.name = "global"
    network = random_network(config, info_of(config.data), 0)
    method = apply_method(network, config)
    method.on_step_start(0)
    before = current_masks(network)
    for _, layer in masked_layers(network):
        with torch.autograd._unsafe_preserve_version_counter(layer.scores), torch.no_grad():
            layer.scores.copy_(layer.scores.flip(0))
    method.on_evaluation(1)
    after = current_masks(network)
    assert not all(torch.equal(before[path], after[path]) for path in after)
    for path, layer in masked_layers(network):
        assert torch.equal(network.get_submodule(path).effective_weight() != 0, after[path])  # type: ignore[operator]
        layer.scores.detach().mul_(1)  # its version counts up, and what was worked out before is no longer taken
        with pytest.raises(RuntimeError, match="refresh"):
            layer.effective_weight()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cuda_graph": True, "devices": 2}, "train.devices agree in each step"),
        ({"compile": True, "devices": 2}, "train.compile=true: works with one device"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, int], words: str, tmp_path: Path) -> None:
    config = small(tmp_path, **change)
    with pytest.raises(ConfigError, match=words):
        checks.check(config)


def test_what_the_host_draws_in_each_step_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.cuda_graph=true: method=sampled draws"):
        checks.check(small(tmp_path, "sampled", cuda_graph=True))
    config = small(tmp_path, cuda_graph=True)
    checks.check(config)
    assert folder_name(config) == folder_name(small(tmp_path))  # the same kernels: the same run
    compiled_one = copy.deepcopy(config)
    compiled_one.train.compile = True
    assert folder_name(compiled_one) != folder_name(config)


def test_machines_without_what_it_needs_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"train\.cuda_graph=true: needs an NVIDIA GPU, and this run is on cpu"):
        refuse_graph("cpu")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(
        ConfigError,
        match=r"train\.mask_kernels=true: needs an NVIDIA GPU .* this run is on cpu; type: train\.mask_kernels=false$",
    ):
        preflight([small(tmp_path, mask_kernels=True, device=Device.cpu)])
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler was not found"):
        refuse_compilation("cpu")
    monkeypatch.setattr(acceleration.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs triton on a GPU"):
        refuse_compilation("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["edge_popup", "dnw", "dense"])
@pytest.mark.parametrize("pruning", list(ALLOCATIONS))
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_cuda_graph_is_the_run_without(method: str, pruning: str, optimizer: str, tmp_path: Path) -> None:
    def config(out: str, graph: bool) -> Config:
        made = small(tmp_path / out, method, batch_size=32, cuda_graph=graph, optimizer=optimizer)
        made.pruning.name = pruning
        return made

    plain, graph = execute(config("plain", False), QUIET), execute(config("graph", True), QUIET)
    assert plain.state == graph.state == "done"
    if optimizer == "sgd":
        assert_same_run(plain.folder, graph.folder)
    interrupt(config("again", True), 9)
    assert_same_run(graph.folder, execute(config("again", True), QUIET).folder)


@pytest.mark.gpu
def test_an_epoch_on_a_gpu_never_waits(tmp_path: Path) -> None:
    """Forbid synchronisation from the first step to the last: the host decides and reads nothing between."""
    config = small(tmp_path, batch_size=32, epochs=1)

    def on_step(epoch: int, batch: int, batches: int) -> None:
        torch.cuda.set_sync_debug_mode("default" if batch == batches else "error")

    outcome = execute(config, replace(QUIET, on_step=on_step))
    assert outcome.state == "done"
