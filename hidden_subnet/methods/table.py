"""The methods by name; a new one is a file, a dataclass in config.py, and a line here and in conf/method/."""

from hidden_subnet.methods.dense import DENSE
from hidden_subnet.methods.dnw import DNW
from hidden_subnet.methods.edge_popup import EDGE_POPUP
from hidden_subnet.methods.last_layer import LAST_LAYER
from hidden_subnet.methods.method import Method
from hidden_subnet.methods.random import RANDOM
from hidden_subnet.methods.random_trained import RANDOM_TRAINED
from hidden_subnet.methods.sampled import SAMPLED
from hidden_subnet.methods.warmup_then_prune import WARMUP_THEN_PRUNE

METHODS: dict[str, Method] = {
    "edge_popup": EDGE_POPUP,
    "sampled": SAMPLED,
    "dense": DENSE,
    "random": RANDOM,
    "random_trained": RANDOM_TRAINED,
    "dnw": DNW,
    "warmup_then_prune": WARMUP_THEN_PRUNE,
    "last_layer": LAST_LAYER,
}
