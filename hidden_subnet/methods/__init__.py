"""Methods that find a subnetwork, and baselines: a file for each. Importing this package imports all of them."""

from hidden_subnet.config.registries import import_files

import_files(__name__, __path__)
