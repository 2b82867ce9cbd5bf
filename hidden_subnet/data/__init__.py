"""The images: catalog of the data sets, reading, splitting and batches. Importing this package imports all files."""

from hidden_subnet.config.registries import import_files

import_files(__name__, __path__)
