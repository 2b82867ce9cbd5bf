"""IteRand, a method of your own: edge-popup that draws pruned weights again (Chijiwa et al. 2021, algorithm 1).

python launch.py -m use=examples/own_method.py method=my_iterand,edge_popup prune_rate=0.5
"""

from dataclasses import dataclass

import torch

import hidden_subnet as hs


@dataclass
class IteRandSettings(hs.MethodSettings):
    every: int = 300  # steps from one draw to the next
    fraction: float = 0.1  # of the pruned weights that are drawn again


@hs.register_method("my_iterand")
class IteRand(hs.EdgePopup):
    settings = IteRandSettings
    changes_weights = True  # without a gradient, so that checkpoints must hold them

    def __init__(self, network, config):
        super().__init__(network, config)
        self.first = [layer.weight.detach().cpu().flatten().clone() for _, layer in self.layers]

    @torch.no_grad()
    def on_step_end(self, step):
        if (step + 1) % self.config.method.every:
            return
        self.allocation.refresh()  # the scores have just changed
        for (path, layer), first in zip(self.layers, self.first, strict=True):
            source, weight = self.generator(step, path), layer.weight
            # Any of the layer's first weights with equal probability: the distribution that the init gave them.
            drawn = first[torch.randint(first.numel(), weight.shape, generator=source)]
            chosen = torch.rand(weight.shape, generator=source) < self.config.method.fraction
            again = chosen.to(weight.device) & ~layer.rule.mask(layer.scores)
            weight.copy_(torch.where(again, drawn.to(weight.device), weight))
