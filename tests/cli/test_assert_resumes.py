"""assert_resumes: it passes for a method that draws from its own stream, and names what differs for others."""

from pathlib import Path

import pytest
import torch
from helpers.own_parts import Use, forgotten, use
from helpers.runs import small

import hidden_subnet as hs
from hidden_subnet.errors import ConfigError
from hidden_subnet.methods.edge_popup import EdgePopup

__all__ = ["forgotten", "use"]

METHOD = """
import torch
from dataclasses import dataclass
import hidden_subnet as hs

@dataclass
class Settings(hs.MethodSettings):
    noise: float = 0.01

@hs.register_method("mine")
class Mine(hs.EdgePopup):
    settings = Settings
    changes_weights = True

    def on_epoch_start(self, epoch):
        super().on_epoch_start(epoch)
        {}

    def shake(self, path, layer, source):
        with torch.no_grad():
            layer.weight += self.config.method.noise * torch.randn(layer.weight.shape, generator=source)

    def redraw(self, path, layer, source):
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=source))
"""
EACH = "for path, layer in self.layers: "
QUICK = ("train.epochs=2",)


@pytest.mark.slow
def test_a_redraw_from_the_methods_own_stream_resumes(use: Use) -> None:
    used = use(METHOD.format(f"{EACH}self.redraw(path, layer, self.generator(epoch, path))"))
    hs.assert_resumes("method=mine", *QUICK, use=used)


@pytest.mark.slow
def test_a_redraw_from_a_global_generator_does_not(use: Use) -> None:
    used = use(METHOD.format(f"{EACH}self.redraw(path, layer, None)"))
    with pytest.raises(AssertionError, match=r"^method=mine ") as caught:
        hs.assert_resumes("method=mine", *QUICK, use=used)
    for words in ("from epoch 0 on", "in last.ckpt ", "Two undisturbed runs differ too", "self.generator(step, path)"):
        assert words in str(caught.value)


@pytest.mark.slow
def test_what_is_done_twice_at_the_start_of_an_epoch_does_not(use: Use) -> None:
    used = use(METHOD.format(f"{EACH}self.shake(path, layer, self.generator(epoch, path))"))
    with pytest.raises(AssertionError, match="Where a run resumes within an epoch, on_epoch_start is called again"):
        hs.assert_resumes("method=mine", *QUICK, use=used)


def test_the_streams_of_a_method_are_its_own() -> None:
    method = EdgePopup(torch.nn.Sequential(), small(Path("runs")))
    draws = [torch.rand(3, generator=method.generator(*where)).tolist() for where in ((0, "a"), (1, "a"), (0, "b"))]
    assert draws[0] == torch.rand(3, generator=hs.generator(0, "edge_popup", 0, "a")).tolist()
    assert len({tuple(each) for each in draws}) == 3


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="method=nothing"):
        hs.assert_resumes("method=nothing")
