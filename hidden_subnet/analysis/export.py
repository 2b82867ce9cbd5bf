"""Writes the subnetwork of a finished run to a file that other programs read without this package."""

import io
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from hidden_subnet.analysis.load import load
from hidden_subnet.config.registries import info_of
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store import files, folders
from hidden_subnet.store.files import load_config
from hidden_subnet.training.finished import Which, finished

PROGRAM, ONNX, SAFETENSORS = ".pt2", ".onnx", ".safetensors"
OTHER_FORMATS = (".h5", ".npz", ".npy", ".tflite", ".json")
"""Suffixes of formats that are not written; any suffix beside all these is a file of torch.save."""
FOR_ONNX = ("onnx", "onnxscript")
"""Packages of the extra `onnx`."""


def export(run: str | Path, which: Which, to: Path | None) -> Path:
    """Write the plain module of `load` to a file, and return the path.

    `to`, by default subnetwork-<which>.pt in the run's folder, says the format by its name. Programs need neither this
    package nor torchvision to compute the logits of images (B, C, H, W): .pt2 (torch.export) and .onnx. Weights alone
    are .safetensors, and any other name a state_dict, which torch.load reads. A file that is there is replaced once the
    new one is whole. Raises ConfigError for a format that is not written, or whose packages are missing.
    """
    path = to or finished(run) / f"subnetwork-{which}.pt"
    if path.suffix in OTHER_FORMATS:
        rule = f"is written as {PROGRAM}, {ONNX}, {SAFETENSORS} or by torch.save, and not as its name says"
        raise ConfigError(problem(f"--to {path}", rule, "--to", str(path.with_suffix(".pt")), lead="as in"))
    if path.suffix == ONNX and not all(map(find_spec, FOR_ONNX)):
        raise ConfigError(problem(f"--to {path}", "needs the packages of ONNX", "pip", "install", *FOR_ONNX))
    network = load(run, which)
    images = torch.zeros(2, *info_of(load_config(finished(run) / files.CONFIG).data).shape)
    try:
        return write_network(network, images, path, root=to and folders.make_parent(path, None))
    except OSError as error:
        rule = f"cannot be written ({error.strerror or error})"
        raise OSError(problem(str(path), rule, "--to", "subnetwork.pt", lead="name another, as in")) from error


def write_network(network: nn.Module, images: Tensor, path: Path, root: Path | None = None) -> Path:
    """Write a network to a file of the format of its name, and return the path.

    images: (2, C, H, W), with which a program is traced. root: the folder that may be reached by links.
    """
    write = FORMATS.get(path.suffix, _state_dict)
    folders.write_atomically(path, write(network, images), root=root)
    return path


def _state_dict(network: nn.Module, images: Tensor) -> bytes:
    content = io.BytesIO()
    torch.save(network.state_dict(), content)
    return content.getvalue()


def _safetensors(network: nn.Module, images: Tensor) -> bytes:
    # It takes no tensors that share memory, as tied weights do.
    return safetensors.torch.save({name: value.clone().contiguous() for name, value in network.state_dict().items()})


def _program(network: nn.Module, images: Tensor) -> bytes:
    content = io.BytesIO()
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, content)
    return content.getvalue()


def _onnx(network: nn.Module, images: Tensor) -> bytes:
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)  # it would tell how to register operations of torchvision that are not here
    try:
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
        )
    finally:
        log.setLevel(before)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


FORMATS: dict[str, Callable[[nn.Module, Tensor], bytes]] = {
    PROGRAM: _program,
    ONNX: _onnx,
    SAFETENSORS: _safetensors,
}
"""The function that makes the content of a file, by the end of its name."""
