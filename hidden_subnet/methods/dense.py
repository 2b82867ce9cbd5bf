"""The upper control: no mask, the weights are trained as usual."""

from hidden_subnet.methods.method import Method

DENSE = Method(trains="weights", masks=False)
