"""The methods by name; a new one is a file, a dataclass in config.py, and a line here and in conf/method/."""

from hidden_subnet.methods.dense import DENSE
from hidden_subnet.methods.edge_popup import EDGE_POPUP
from hidden_subnet.methods.last_layer import LAST_LAYER
from hidden_subnet.methods.method import Method
from hidden_subnet.methods.random import RANDOM

METHODS: dict[str, Method] = {"edge_popup": EDGE_POPUP, "dense": DENSE, "random": RANDOM, "last_layer": LAST_LAYER}
