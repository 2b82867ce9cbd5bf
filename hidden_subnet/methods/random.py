"""The lower control: a fixed random mask with the same number of weights, nothing trained.

The K largest of independent, identically distributed scores are a uniformly random choice of K weights.
"""

from hidden_subnet.methods.edge_popup import EdgePopupRule
from hidden_subnet.methods.method import Method

RANDOM = Method(trains="nothing", rule=EdgePopupRule, stream="mask", follows_ramp=False)
