"""python killed_at.py <n> <file> <arguments of launch.py>: a run that is SIGKILLed in its n-th batch (0: in none).

Batches of training and of evaluation count; the file gets a letter for each as it begins: t or e.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    kill_at, report = int(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, str(ROOT))
    import torch

    from hidden_subnet.training.metrics import MetricSums

    begun, add = 0, MetricSums.add
    file = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counted(self: MetricSums, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        nonlocal begun
        begun += 1
        os.write(file, b"t" if torch.is_grad_enabled() else b"e")
        if begun == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, loss, logits, labels)

    MetricSums.add = counted  # type: ignore[method-assign]
    sys.argv = [str(ROOT / "launch.py"), *sys.argv[3:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
