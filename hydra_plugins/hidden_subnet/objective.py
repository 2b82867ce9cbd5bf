"""What a sweeper that searches (Optuna's) is told about a run."""

from hidden_subnet import record
from hidden_subnet.settings import Config


def objective(config: Config) -> float | None:
    """Validation accuracy after the last epoch, 0 to 1: the test images are never looked at for a choice.

    None where the run is not done, or holds out no images (data.validation=0).
    """
    try:
        result = record.read_result(record.folder_of(config))
    except ValueError:  # damaged, as its table says too
        return None
    validation = result["last"].get("validation") if result else None
    return float(validation["top1"]) if validation else None
