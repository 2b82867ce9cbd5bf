"""Random networks: their sizes, modules and inits. Importing this package imports every file in it."""

from hidden_subnet.config.registries import import_files

import_files(__name__, __path__)
