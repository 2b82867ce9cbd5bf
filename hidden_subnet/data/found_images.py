"""Which images a run is on: found on disk while its config is composed, and compared when the run opens them.

Their content is part of the run's id, so other images are another run.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from hidden_subnet.config.ranges import out_of_range, ranges_in
from hidden_subnet.config.registries import DATA
from hidden_subnet.config.settings import Config, Data, FoundImages
from hidden_subnet.data.folder_content import content_digest
from hidden_subnet.data.folder_listing import Listing, list_images
from hidden_subnet.data.own_data import digest_of
from hidden_subnet.errors import ConfigError, DataError, problem
from hidden_subnet.store.files import folder_of
from hidden_subnet.store.find import is_run

Found = tuple[FoundImages, FoundImages]
"""The images by their content, and by their names only, as versions before 0.2 found them (equal in memory)."""
Seen = dict[tuple[str, str, str], Found]
"""Content found for each data set, root and settings of the user's own data, so that a sweep does not look again for
each of its runs."""


def find_images(data: Data) -> Found:
    """Return what is there of a data set. Raises DataError for a missing or malformed folder, or a damaged file.

    Raises ConfigError for numbers of its settings out of range, with which the user's own data cannot be made.
    """
    for line in out_of_range({"data": asdict(data)}, ranges_in(cast(Any, type(data)), "data.")):
        raise ConfigError(line)
    entry, root = DATA[data.name], _root(data)
    entry.forget(data)  # of an earlier command in this process, as in a notebook
    if not entry.in_folders:
        content = FoundImages(digest=_content(data))
        return content, content
    listing = list_images(entry.folders, data.name, root)
    by_name = found_by_name(listing)
    return replace(by_name, digest=content_digest(listing)), by_name


def found_by_name(listing: Listing) -> FoundImages:
    """Return the counts of a listing, with the digest of its names."""
    return FoundImages(
        classes=len(listing.classes), train=len(listing.train), test=len(listing.test), digest=listing.digest
    )


def with_found_images(config: Config, seen: Seen) -> Config:
    """Return the config with what says which images its data set has; they are part of the id.

    Raises DataError like `find_images`.
    """
    data = config.data
    if data.found != FoundImages():
        rule = "cannot be set, since the program looks at the images itself"
        raise DataError(problem("data.found", rule, f"data.root={data.root}"))
    if data.name not in DATA:
        return config
    return replace(config, data=replace(data, found=_find(data, seen)[0]))


def with_trusted_names(config: Config, seen: Seen) -> Config:
    """Return the config under the id of an older run on images of the same names, with data.trust_names.

    It stays as it is if there is no such run, if the run exists under its own id, or with force=true. Raises DataError
    for an older run without data.trust_names, since that may have been on other images.
    """
    if config.data.name not in DATA:
        return config
    by_name = _find(config.data, seen)[1]
    if by_name == config.data.found:
        return config
    older = replace(config, data=replace(config.data, found=by_name))
    if config.force or not is_run(folder_of(older)) or is_run(folder_of(config)):
        return config
    if config.data.trust_names:
        return older
    raise DataError(
        f"{folder_of(older)}: an older version ran this on images of these names, of any content; "
        "data.trust_names=true takes it for this run; to run it under a new id, type: force=true"
    )


def _find(data: Data, seen: Seen) -> Found:
    own = repr(data) if DATA[data.name].own is not None else ""
    key = (data.name, str(_root(data)), own)
    if key not in seen:
        seen[key] = find_images(data)
    return seen[key]


def _root(data: Data) -> Path:
    return Path(data.root).expanduser().absolute()


def _content(data: Data) -> str:
    """Return the digest of a data set in memory; "" for the published files."""
    entry = DATA[data.name]
    return entry.content(_root(data)) if entry.own is None else digest_of(entry.own(data))


def listing_of(data: Data) -> Listing:
    """Return the image files of a run. Raises DataError where they are not those that it was composed with."""
    listing = list_images(DATA[data.name].folders, data.name, _root(data))
    by_name = found_by_name(listing)
    if data.found == by_name:
        if data.trust_names:
            return listing
        raise DataError(
            f"{listing.folder}: the run was composed by an older version, which did not look at the content of the "
            "images; give the command again"
        )
    now = replace(by_name, digest=content_digest(listing))
    if data.found != now:
        raise _others(data, listing.folder, f"{_shown(now)}, then {_shown(data.found)}")
    return listing


def require_content(data: Data) -> None:
    """Raise DataError where the files of a data set in memory are not those that the run was composed with."""
    root, now = _root(data), _content(data)
    if now != data.found.digest:
        raise _others(data, root, f"{now or PUBLISHED}, then {data.found.digest or PUBLISHED}")


PUBLISHED = "the published files"


def _others(data: Data, where: Path, what: str) -> DataError:
    return DataError(
        f"{where}: the images of data={data.name} have changed since the run was composed: now {what}; set data.root "
        "to the former images, or, for another run, give the command again"
    )


def _shown(found: FoundImages) -> str:
    return f"{found.classes} classes, {found.train} + {found.test} images ({found.digest})"
