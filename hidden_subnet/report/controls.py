"""What controls say, in numbers and in a sentence: what made a run's accuracy."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SHUFFLED, REDRAWN, INVERTED = "mask shuffled within layers", "weights redrawn under the mask", "scores inverted"
READOUT, SMALL = "only the last layer trained, no mask", "small dense network, as many parameters"
DEVIATIONS = 3
"""Accuracies on the same number of images differ when they are further apart than so many standard deviations."""


@dataclass(frozen=True)
class Study:
    """A run's test accuracy and those of its controls, fractions 0 to 1."""

    own: float
    chance: float
    images: int
    controls: dict[str, list[float]]
    """A value a draw."""

    def mean(self, name: str) -> float:
        return statistics.fmean(self.controls[name])

    @property
    def noise(self) -> float:
        """Least difference that says something: DEVIATIONS of the difference of two binomial proportions."""
        p = min(max(self.own, 1 / self.images), 1 - 1 / self.images)
        return DEVIATIONS * math.sqrt(2 * p * (1 - p) / self.images)

    def is_chance(self, top1: float) -> bool:
        return top1 <= self.chance + DEVIATIONS * math.sqrt(self.chance * (1 - self.chance) / self.images)

    def as_good(self, name: str) -> bool:
        return self.mean(name) >= self.own - self.noise

    def differs(self, name: str) -> bool:
        return abs(self.mean(name) - self.own) > self.noise

    def share(self, name: str) -> float:
        """Of the run's lead over chance, what the control has."""
        return (self.mean(name) - self.chance) / (self.own - self.chance)


def shown(top1: Sequence[float]) -> str:
    """Mean and, of several, standard deviation, in per cent."""
    mean = f"{100 * statistics.fmean(top1):.2f}"
    return f"{mean} ± {100 * statistics.stdev(top1):.2f} %" if len(top1) > 1 else f"{mean} %"


def sentence(study: Study, name: str) -> str:
    """What one control says."""
    if study.is_chance(study.own):
        return "-"
    points = 100 * (study.mean(name) - study.own)
    if name == READOUT:
        if study.as_good(name):
            told = f"more ({points:+.1f} points)"
            if not study.differs(name):
                told = f"as much ({points:+.1f} points, within noise)"
            return f"a trained readout of random features gives {told}: it needs no mask"
        return f"the mask is worth {-points:.1f} points more than a trained readout of random features"
    if name == SMALL:
        if not study.differs(name):
            return f"training as many weights gives as much ({points:+.1f} points, within noise)"
        return f"training as many weights gives {abs(points):.1f} points {'more' if points > 0 else 'less'}"
    good, none, between = {
        SHUFFLED: (
            "which weights a layer keeps does not matter",
            "nothing is left: all of it comes from which weights are kept",
            "of the lead over chance is left: the rest comes from which weights are kept",
        ),
        REDRAWN: (
            "the mask serves other weights as well: it is the connections, not these weights",
            "nothing is left: the mask is one for these weights",
            "of the lead over chance is in the connections; the rest needs these weights",
        ),
        INVERTED: (
            "the lowest scores serve as well: their order says nothing",
            "the weights with the lowest scores hold nothing",
            "of the lead over chance is in the weights with the lowest scores",
        ),
    }[name]
    if study.as_good(name):
        return good
    return none if study.is_chance(study.mean(name)) else f"{100 * study.share(name):.0f} % {between}"


def verdict(study: Study) -> str:
    """One sentence over all controls: the mask, or what else."""
    own = f"{100 * study.own:.2f} %"
    if study.is_chance(study.own):
        return f"the run itself is at chance ({own}): there is no accuracy to explain"
    if study.as_good(SHUFFLED):
        return (
            f"not the choice of weights: another mask with as many in each layer has {shown(study.controls[SHUFFLED])}"
        )
    if study.as_good(READOUT):
        return (
            f"the mask chooses ({shown(study.controls[SHUFFLED])} are left when it is shuffled), but so much needs no "
            f"mask: a trained readout of random features reaches {shown(study.controls[READOUT])}"
        )
    return (
        f"the mask made it: of {own}, {shown(study.controls[SHUFFLED])} are left when it is shuffled, "
        f"{shown(study.controls[REDRAWN])} on other weights; a trained readout of random features reaches "
        f"{shown(study.controls[READOUT])}"
    )
