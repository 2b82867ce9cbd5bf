"""The rules for the settings of `data`, each broken one told in a line."""

from collections.abc import Iterator

from hidden_subnet.data.info import FOLDERS, INFO, held_out, trained_on
from hidden_subnet.dataset import info_of
from hidden_subnet.settings import Config


def data_problems(config: Config) -> Iterator[str]:
    data = config.data
    info = info_of(data)
    held = 0
    if not 0 <= data.validation < 1:
        yield f"data.validation={data.validation:g}: the fraction held out must be at least 0 and below 1"
    elif data.validation > 0:
        held = held_out(info.train, data.validation)
        if not 0 < held < info.train:
            yield (
                f"data.validation={data.validation:g}: holds out {held} of {info.train} images; "
                "at least one must be held out and one must be left (0 trains on all)"
            )
    if not 0 <= data.crop <= 64:
        yield f"data.crop={data.crop}: the padding must be 0 (no random crop) to 64 pixels"
    if data.crop and data.resized_crop:
        yield f"data.crop={data.crop}: data.resized_crop=true cuts a window of its own; set one of them to 0 or false"
    if not 0 < data.fraction <= 1:
        yield f"data.fraction={data.fraction:g}: the fraction trained on must be above 0 and at most 1"
    elif data.fraction < 1:
        if data.one_batch:
            yield f"data.fraction={data.fraction:g}: data.one_batch=true takes one batch already; leave one away"
        if (trained := trained_on(info.train - held, data.fraction)) < info.classes:
            yield (
                f"data.fraction={data.fraction:g}: leaves {trained} of {info.train - held} images to train on; "
                f"at least one is needed for each of the {info.classes} classes"
            )
    if data.workers is not None and not 0 <= data.workers <= 256:
        yield f"data.workers={data.workers}: must be 0 (the run reads by itself) to 256; leave it away for one a core"
    yield from _sizes(config)


def _sizes(config: Config) -> Iterator[str]:
    data, name = config.data, config.data.name.name
    if not 0 <= data.pad <= 64:
        yield f"data.pad={data.pad}: the pixels added on each side must be 0 to 64"
    if not 0 <= data.size <= 4096:
        yield f"data.size={data.size}: the side of the images must be 0 (as they are) to 4096 pixels"
    if name in FOLDERS:
        if data.size == 0:
            yield f"data.size=0: data={name} has images of many sizes; give one, as in data.size={INFO[name].shape[1]}"
        if data.pad:
            yield f"data.pad={data.pad}: data={name} is resized to data.size={data.size} anyway; set that instead"
        if data.resize and not data.size <= data.resize <= 8192:
            yield (
                f"data.resize={data.resize}: the shorter side before the middle is cut out must be 0 "
                f"or from data.size={data.size} to 8192"
            )
        return
    if data.resize:
        yield f"data.resize={data.resize}: is for image files (data={', data='.join(FOLDERS)}); choose data.size"
    side = max(INFO[name].shape[1:]) + 2 * data.pad
    if data.size and data.size < side:
        yield f"data.size={data.size}: the images of data={name} are {side}x{side} here and are only enlarged"
