"""A network of your own: python launch.py -m use=examples/own_network.py model=my_net model.hidden=100,300"""

import math

from torch import nn

import hidden_subnet as hs


@hs.register_model("my_net")
def my_net(shape, classes, *, hidden: int = 300, dropout: float = 0.0):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), hidden, bias=False),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes, bias=False),
    )
