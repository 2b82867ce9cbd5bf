"""Compare a run with its control runs: how much of its accuracy comes from the mask."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hidden_subnet.training.collapse import DEVIATIONS, at_chance

SHUFFLED, REDRAWN, INVERTED = "mask shuffled within layers", "weights redrawn under the mask", "scores inverted"
READOUT, SMALL = "only the last layer trained, no mask", "small dense network, as many parameters"


@dataclass(frozen=True)
class Study:
    """Test accuracies of a run and of its controls, as fractions in [0, 1]."""

    own: float
    chance: float
    images: int
    """Number of test images."""
    controls: dict[str, list[float]]
    """Accuracies by control, one per seed."""

    def mean(self, name: str) -> float:
        """Mean accuracy of a control over its seeds."""
        return statistics.fmean(self.controls[name])

    @property
    def noise(self) -> float:
        """Smallest significant difference: DEVIATIONS deviations of the difference of two binomial proportions."""
        p = min(max(self.own, 1 / self.images), 1 - 1 / self.images)
        return DEVIATIONS * math.sqrt(2 * p * (1 - p) / self.images)

    def is_chance(self, top1: float) -> bool:
        """Whether an accuracy is not significantly above guessing."""
        return at_chance(top1, self.chance, self.images)

    def as_good(self, name: str) -> bool:
        """Whether the control is as good as the run, or better."""
        return self.mean(name) >= self.own - self.noise

    def differs(self, name: str) -> bool:
        """Whether the control differs significantly from the run, in either direction."""
        return abs(self.mean(name) - self.own) > self.noise

    def share(self, name: str) -> float:
        """Fraction of the run's gain over chance that the control reaches."""
        return (self.mean(name) - self.chance) / (self.own - self.chance)


def shown(top1: Sequence[float]) -> str:
    """Return the mean accuracy in %, with the standard deviation if there are several."""
    mean = f"{100 * statistics.fmean(top1):.2f}"
    return f"{mean} ± {100 * statistics.stdev(top1):.2f} %" if len(top1) > 1 else f"{mean} %"


def sentence(study: Study, name: str) -> str:
    """Return what one control shows about the run, in one sentence; "-" if the run is at chance."""
    if study.is_chance(study.own):
        return "-"
    points = 100 * (study.mean(name) - study.own)
    if name == READOUT:
        if study.as_good(name):
            better = f"better ({points:+.1f} points)"
            if not study.differs(name):
                better = f"as good ({points:+.1f} points, within noise)"
            return f"a trained readout of random features is {better}: this accuracy needs no mask"
        return f"the mask gives {-points:.1f} points more than a trained readout of random features"
    if name == SMALL:
        if not study.differs(name):
            return f"training as many weights is as good ({points:+.1f} points, within noise)"
        return f"training as many weights gives {abs(points):.1f} points {'more' if points > 0 else 'less'}"
    good, none, between = {
        SHUFFLED: (
            "which weights a layer keeps does not matter",
            "at chance: all of the accuracy comes from which weights are kept",
            "of the gain over chance remains; the rest comes from which weights are kept",
        ),
        REDRAWN: (
            "the mask works as well with other weights: the connections matter, not these weights",
            "at chance: the mask works with these weights only",
            "of the gain over chance comes from the connections; the rest needs these weights",
        ),
        INVERTED: (
            "the weights with the lowest scores work as well: the order of the scores has no meaning",
            "at chance: the weights with the lowest scores do not classify",
            "of the gain over chance is reached by the weights with the lowest scores",
        ),
    }[name]
    if study.as_good(name):
        return good
    return none if study.is_chance(study.mean(name)) else f"{100 * study.share(name):.0f} % {between}"


def verdict(study: Study) -> str:
    """Return one sentence about all controls: whether the accuracy comes from the mask, and if not from what."""
    own = f"{100 * study.own:.2f} %"
    if study.is_chance(study.own):
        return f"the run itself is at chance ({own}): there is no accuracy to explain"
    if study.as_good(SHUFFLED):
        return (
            f"the choice of weights does not matter: another mask with as many in each layer reaches "
            f"{shown(study.controls[SHUFFLED])}"
        )
    if study.as_good(READOUT):
        return (
            f"the mask matters ({shown(study.controls[SHUFFLED])} when it is shuffled), but this accuracy needs no "
            f"mask: a trained readout of random features reaches {shown(study.controls[READOUT])}"
        )
    return (
        f"the accuracy comes from the mask: {own}, but {shown(study.controls[SHUFFLED])} when it is shuffled and "
        f"{shown(study.controls[REDRAWN])} with other weights; a trained readout of random features reaches "
        f"{shown(study.controls[READOUT])}"
    )
