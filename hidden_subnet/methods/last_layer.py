"""A control: the last layer is trained on the features of the random network, unmasked; nothing else changes."""

from hidden_subnet.methods.method import Method

LAST_LAYER = Method(trains="weights", masks=False, only_last_layer=True)
