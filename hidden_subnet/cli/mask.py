"""`python -m hidden_subnet mask`: write the masks of a run to a small file, from which the subnetwork is made again."""

from pathlib import Path

from hidden_subnet.analysis.save_masks import Format, save_masks
from hidden_subnet.masks.coding import information
from hidden_subnet.store import folders
from hidden_subnet.store.access import refuse_unwritable
from hidden_subnet.store.find import find_run
from hidden_subnet.training import mask_file
from hidden_subnet.training.finished import Which


def mask(out: Path, name: str, which: Which, to: Path | None, format: Format | None) -> None:
    """Write the masks of a checkpoint of the run `name` to the file `to`, and print its size and how to read it."""
    folder = find_run(out, name)
    refuse_unwritable([folder if to is None else to.absolute().parent], folder.parent, "name another file with --to")
    path = save_masks(folder, to, which, format=format)
    size = len(folders.read_bytes(path))
    if path.suffix != mask_file.SUFFIX and format != "mask":
        print(f"wrote {path.absolute()}: {size:,} bytes, a boolean tensor by layer")
    else:
        file = mask_file.read(path)
        bits = sum(information(size, planes[0][0]) for _, size, planes in file.layers)
        weights = sum(size for _, size, _ in file.layers)
        print(f"wrote {path.absolute()}: {size:,} bytes, of which masks {len(file.code):,}")
        print(f"the information in masks of this density on {weights:,} weights: {bits / 8:,.0f} bytes")
        print(f'read it with: model = hidden_subnet.load("{path}")')
    print(f"build on it with: method=finetune mask={path}")
