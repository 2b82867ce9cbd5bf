"""A metric of your own: python launch.py use=examples/own_metric.py 'metrics=[calibration]'"""

import hidden_subnet as hs


@hs.register_metric("calibration")
def calibration(logits, labels):
    confidence, guess = logits.softmax(dim=1).max(dim=1)
    return (confidence.mean() - (guess == labels).float().mean()).abs()
