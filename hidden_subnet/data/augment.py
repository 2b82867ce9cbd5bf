"""Transforms of torchvision.transforms.v2 by name (data.augment), for training images after crop and flip.

The numbers that the transforms draw for an image are a function of (seed, epoch, image): they depend neither on the
batch nor on the process or device that asks for it. Images are transformed on the CPU, one by one, so that the result
is the same on every device.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hidden_subnet.config.registries import nearest
from hidden_subnet.errors import AGAIN, ConfigError, problem
from hidden_subnet.seeding import derive

if TYPE_CHECKING:
    from torchvision.transforms import v2

EXAMPLE = "data.augment=[RandomVerticalFlip,{RandomRotation:{degrees:15}}]"
TRIES = 16
"""Draws with which a transform is tried before the first run."""
White = float
"""The value of white: 255 of bytes; with another one images go to the transforms as fractions of it."""


class Augment:
    """The transforms of data.augment, one after the other."""

    def __init__(self, given: Sequence[Any], white: White = 255.0) -> None:
        """Raise ConfigError for what names no transforms with their arguments."""
        from torchvision.transforms import v2  # here, since it takes as long to import as torch

        self.white = white
        self.transforms = v2.Compose([_made(each) for each in given])

    def __call__(self, pixels: Tensor, images: Tensor, seed: int, epoch: int) -> Tensor:
        """Return the images (B, C, H, W) with these numbers, int64 (B,), transformed, on their device.

        uint8 where white is 255, else float32.
        """
        place = pixels.device
        pixels = pixels.cpu()
        with torch.random.fork_rng(devices=[]):  # transforms draw from torch's global generator
            found = [
                self.of_image(image, seed, epoch, number) for image, number in zip(pixels, images.tolist(), strict=True)
            ]
        return (torch.stack(found) if found else pixels).to(place)

    def of_image(self, pixels: Tensor, seed: int, epoch: int, image: int) -> Tensor:
        """Return one image (C, H, W) on the CPU, transformed; it seeds torch's global generator."""
        torch.default_generator.manual_seed(derive(seed, "augment", epoch, image))
        changed: Tensor
        if self.white == 255:
            changed = self.transforms(pixels)
        else:
            changed = self.transforms(pixels.float() / self.white) * self.white
        return changed


def refuse_wrong_transforms(given: Sequence[Any], shape: tuple[int, int, int], white: White) -> None:
    """Raise ConfigError where a transform does not exist, or does not turn an image (C, H, W) into one of its kind."""
    random = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=random)
    if white == 255:
        image = (256 * image).to(torch.uint8)
    for each in given:
        augment = Augment([each])
        typed = f"data.augment=[{text_of(each)}]"
        for draw in range(TRIES):
            try:
                with torch.random.fork_rng(devices=[]):
                    found = augment.of_image(image, 0, 0, draw)
            except Exception as error:  # torchvision raises many kinds
                why = " ".join(f"{type(error).__name__}: {error}".split())[:150]
                rule = f"does not take an image of {_kind(image)} alone ({why})"
                raise ConfigError(problem(typed, rule, EXAMPLE, lead="as in")) from None
            if not isinstance(found, Tensor) or found.shape != image.shape or found.dtype != image.dtype:
                makes = _kind(found) if isinstance(found, Tensor) else f"a {type(found).__name__}"
                rule = f"must keep size and type of an image ({_kind(image)}), and makes {makes}"
                raise ConfigError(problem(typed, rule, EXAMPLE, lead="as in"))


def text_of(item: Any) -> str:
    """Return a transform as it is typed."""
    if isinstance(item, Mapping):
        return f"{{{','.join(f'{key}:{text_of(value)}' for key, value in item.items())}}}"
    if isinstance(item, list | tuple):
        return f"[{','.join(map(text_of, item))}]"
    return str(item).lower() if isinstance(item, bool) or item is None else str(item)


def _kind(image: Tensor) -> str:
    return f"{'x'.join(map(str, image.shape))} {str(image.dtype).removeprefix('torch.')}"


def _made(item: Any) -> "v2.Transform":
    """Return the transform of `RandomVerticalFlip`, or of a mapping {RandomRotation: {degrees: 15}}."""
    from torchvision.transforms import v2

    typed = f"data.augment=[{text_of(item)}]"
    name, given = next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else (item, {})
    given = {} if given is None else given
    if not isinstance(name, str) or not isinstance(given, Mapping):
        rule = "each is the name of a transform, or its name with its arguments"
        raise ConfigError(problem(typed, rule, EXAMPLE, lead="as in"))
    known = {
        key: kind
        for key, kind in vars(v2).items()
        if isinstance(kind, type) and issubclass(kind, v2.Transform) and kind is not v2.Transform
    }
    if name not in known:
        near = _near(name, known)
        right = f"data.augment=[{near[0]}]" if near else EXAMPLE
        listed = f" (near: {', '.join(near)})" if near else ""
        rule = f"torchvision.transforms.v2 has no such transform{listed}"
        raise ConfigError(problem(typed, rule, right, lead="did you mean" if near else "as in"))
    arguments = inspect.signature(known[name]).parameters
    has = list(arguments)
    for key in given:
        if key not in has:
            near_key = nearest(str(key), has)
            right = f"data.augment=[{text_of({name: {near_key or (has or ['p'])[0]: given[key]}})}]"
            rule = f"{name} has no argument {key} ({', '.join(has) or 'it has none'})"
            raise ConfigError(problem(typed, rule, right if has else f"data.augment=[{name}]", lead="as in"))
    if needed := [key for key, each in arguments.items() if each.default is each.empty and key not in given]:
        rule = f"{name} needs {' and '.join(needed)} (of its arguments {', '.join(has)})"
        raise ConfigError(problem(typed, rule, EXAMPLE, lead="as in"))
    try:
        return known[name](**{key: _argument(key, value) for key, value in given.items()})
    except ConfigError:
        raise
    except Exception as error:  # torchvision raises many kinds
        why = " ".join(str(error).replace(f"{name}.__init__() ", "").split())[:150]
        raise ConfigError(f"{typed}: torchvision refuses it ({why}); mend it, and {AGAIN}") from None


def _argument(key: str, value: Any) -> Any:
    """Return an argument as torchvision takes it: transforms of transforms, and members of its enums by their names."""
    from torchvision.transforms import v2

    if key == "transforms" and isinstance(value, list):
        return [_made(each) for each in value]
    for enum_key, kind in (("interpolation", v2.InterpolationMode), ("policy", v2.AutoAugmentPolicy)):
        if key == enum_key and isinstance(value, str):
            return kind(value.lower())
    return value


def _near(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three names like this one, the nearest first."""
    found: list[str] = []
    while len(found) < 3 and (near := nearest(name, [each for each in known if each not in found])):
        found.append(near)
    return found
