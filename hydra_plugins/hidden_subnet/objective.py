"""The value of a run for a sweeper that searches, such as Optuna's."""

from hidden_subnet.config.settings import Config
from hidden_subnet.store import files


def objective(config: Config) -> float | None:
    """Return the validation accuracy after the last epoch, in [0, 1]; test images are never used for a choice.

    None if the run is not done, or there are no validation images (data.validation=0).
    """
    try:
        result = files.read_result(files.folder_of(config))
    except ValueError:  # damaged; the table shows it too
        return None
    validation = result["last"].get("validation") if result else None
    return float(validation["top1"]) if validation else None
