"""`python -m hidden_subnet export`: write a run's subnetwork to a file that torch reads without this package."""

from pathlib import Path

from hidden_subnet.analysis.export import ONNX, PROGRAM, SAFETENSORS
from hidden_subnet.analysis.export import export as write
from hidden_subnet.config.registries import info_of
from hidden_subnet.store.access import refuse_unwritable
from hidden_subnet.store.files import CONFIG, load_config
from hidden_subnet.store.find import find_run
from hidden_subnet.training.finished import Which


def export(out: Path, name: str, which: Which, to: Path | None) -> None:
    """Write the subnetwork of a checkpoint (`which`) of the run `name` to the file `to`, and print how to use it."""
    folder = find_run(out, name)
    refuse_unwritable([folder if to is None else to.absolute().parent], folder.parent, "name another file with --to")
    path = write(folder, which, to)
    config = load_config(folder / CONFIG)
    info = info_of(config.data)
    print(f"wrote {path.absolute()}")
    if path.suffix == PROGRAM:
        print(f'read it with: model = torch.export.load("{path}").module()')
    elif path.suffix == ONNX:
        print(f'read it with: session = onnxruntime.InferenceSession("{path}"); its input is images, its output logits')
    else:
        read = "safetensors.torch.load_file" if path.suffix == SAFETENSORS else "torch.load"
        print(f'read it with: weights = {read}("{path}")')
        if config.model.temperature != 1:
            print(f"logits are to be divided by model.temperature={config.model.temperature:g}, which is not in it")
        print(f"a program that runs without this package: add --to subnetwork-{which}{PROGRAM}")
    print(f"it takes images of {info.shape}, (pixel / {info.max_value:g} - {info.mean}) / {info.std}")
