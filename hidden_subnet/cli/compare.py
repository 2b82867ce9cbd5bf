"""`python -m hidden_subnet compare`: what the masks of runs have in common, beside what random masks would."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from rich import box
from rich.table import Table
from rich.text import Text

from hidden_subnet.analysis.overlap import ALL, Overlap, Pair, pairs
from hidden_subnet.cli.show import drawable
from hidden_subnet.config.differences import flat, shown
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import files, folders
from hidden_subnet.store.find import find_run
from hidden_subnet.sweep.console import make_console, say
from hidden_subnet.training.finished import Which

MOST = len(ascii_uppercase)


def compare(out: Path, names: Sequence[str], which: Which, to: Path | None) -> None:
    """Print which settings of the runs differ and what their masks have in common: by layer for two, by pair for more.

    The same is drawn into the file `to`, by default figures/compare-<digest of the names>.png beside the first run.
    Raises ConfigError for fewer than two runs or more than 26, and the errors of `pairs`.
    """
    runs = list(dict.fromkeys(find_run(out, name) for name in names))
    if not 2 <= len(runs) <= MOST:
        raise ConfigError(
            f"{' '.join(names)}: {'one run has nothing to be compared with' if len(runs) < 2 else 'too many runs'}; "
            f"name 2 to {MOST}, as in: {PROGRAM} compare RUN OTHER_RUN"
        )
    digest = hashlib.sha256(" ".join([str(which), *(run.name for run in runs)]).encode()).hexdigest()[:8]
    path = drawable(to or runs[0].parent / "figures" / f"compare-{digest}.png", runs[0].parent)
    found = pairs(runs, which)
    letter = dict(zip((run.name for run in runs), ascii_uppercase, strict=False))
    looked = {each.folder.name: each for pair in found for each in (pair.first, pair.second)}
    console = make_console()
    for name, each in looked.items():
        say(console, f"{letter[name]}: {name} ({each.accuracy:.2%} of the test images right)")
    for line in differences(runs):
        say(console, line)
    console.print(layers_table(found[0]) if len(found) == 1 else pairs_table(found, letter))
    say(console, "Jaccard: kept by both / kept by either; by chance: for random masks that keep as many of each layer")
    if have_other_signs(found):
        say(console, "same sign: of the weights that both keep")
    if not all(pair.same_weights for pair in found):
        say(
            console, "Some have other weights under their masks: what both keep is the same place, not the same weight."
        )
    if len(found) == 1 and (agreement := found[0].agreement) is not None:
        say(console, f"{agreement:.2%} of the test images are taken for the same class")
    for each in looked.values():
        if lost := [f"{layer.path}: {', '.join(layer.lost())}" for layer in each.layers if layer.lost()]:
            say(console, f"{letter[each.folder.name]}: {'; '.join(lost)}")
    from hidden_subnet.report.overlaps import write  # loads matplotlib

    write(found, letter, path, root=folders.make_parent(path, runs[0].parent if to is None else None))
    say(console, f"wrote {path.absolute()}")


def differences(runs: Sequence[Path]) -> list[str]:
    """Return a line for each setting of the ids that differs between the finished runs in these folders."""
    flats = [flat((files.read_result(run) or {}).get("projection", {})) for run in runs]
    names = dict.fromkeys(name for each in flats for name in each)
    values = {name: [shown(each.get(name)) for each in flats] for name in names}
    return [f"{name}: {', '.join(each)}" for name, each in values.items() if len(set(each)) > 1]


def layers_table(pair: Pair) -> Table:
    """Return a row for each layer of two runs."""
    signs = have_other_signs([pair])
    table = _table("layer", "weights", "kept\nby A", "kept\nby B", "by both", signs=signs)
    for path, each in pair.layers.items():
        counts = (each.weights, each.first, each.second, each.both)
        table.add_row(Text(path), *(f"{count:,}" for count in counts), *_fractions(each, signs=signs))
    return table


def pairs_table(found: Sequence[Pair], letter: dict[str, str]) -> Table:
    """Return a row for each pair of runs, over all layers."""
    signs = have_other_signs(found)
    table = _table("runs", "same\nclass", signs=signs)
    for pair in found:
        both = f"{letter[pair.first.folder.name]}, {letter[pair.second.folder.name]}"
        agreement = "-" if pair.agreement is None else f"{pair.agreement:.2%}"
        table.add_row(both, agreement, *_fractions(pair.layers[ALL], signs=signs))
    return table


def have_other_signs(found: Sequence[Pair]) -> bool:
    """Return whether some weight that two of the runs keep has another sign in each, as trained weights may."""
    return any(pair.layers[ALL].same_sign != pair.layers[ALL].both for pair in found)


def _table(first: str, *others: str, signs: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first)
    for header in (*others, "Jaccard", "by\nchance", "of the\nsmaller", *(["same\nsign"] if signs else [])):
        table.add_column(header, justify="right")
    return table


def _fractions(each: Overlap, *, signs: bool) -> list[str]:
    found = [f"{each.jaccard:.4f}", f"{each.chance:.4f}", f"{each.nested:.4f}"]
    if signs:
        found.append("-" if not each.both or each.same_sign is None else f"{each.same_sign / each.both:.1%}")
    return found
