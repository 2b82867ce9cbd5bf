"""Draws accuracy against width, a line for networks that take about as many bits: is a small dense one better?

    python launch.py sweep=bits use=examples/accuracy_by_bits.py         # a figure more at the end of the sweep
    python -m hidden_subnet results --use examples/accuracy_by_bits.py   # the same of all runs, again

Bits: those of result.json, n H(k / n) for each mask of n weights with k kept. About as many: to a factor of 1.4.
"""

import numpy as np

import hidden_subnet as hs


@hs.register_plot("bits")
def accuracy_by_bits(results, axes):
    done = results[results["state"] == "done"]
    means = done.groupby(["width", "prune_rate"], as_index=False)[["bits", "density", "last_test_top1"]].mean()
    means["accuracy"] = 100 * means["last_test_top1"]
    budget = 12_500 * 2 ** np.log2(means["bits"].astype(float) / 12_500).round()
    for bits, points in sorted(means.groupby(budget), reverse=True):
        points = points.sort_values("width")
        (line,) = axes.plot(points["width"], points["accuracy"], marker="o", label=f"{bits:,.0f} bits")
        best = points.loc[points["accuracy"].idxmax()]
        at = best["width"], best["accuracy"]
        axes.plot(*at, marker="*", markersize=12, color=line.get_color())
        axes.annotate(f"{100 * best['density']:.0f} % kept", at, (0, 8), textcoords="offset points", ha="center")
    axes.set(xscale="log", xlabel="width", ylabel="test accuracy (%)")
    axes.legend(title="best: star")
