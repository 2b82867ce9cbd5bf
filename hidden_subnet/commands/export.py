"""A run's subnetwork as a file that any program with torch can read."""

from pathlib import Path

from hidden_subnet import loading
from hidden_subnet.commands.names import find_run
from hidden_subnet.config import load_config
from hidden_subnet.dataset import info_of
from hidden_subnet.record import CONFIG


def export(out: Path, name: str, which: loading.Which, to: Path | None) -> None:
    folder = find_run(out, name)
    path = loading.export(folder, which, to)
    info = info_of(load_config(folder / CONFIG).data)
    print(f"wrote {path.absolute()}")
    print(f'read it with: model = torch.load("{path}", weights_only=False)')
    print(f"it takes images of {info.shape}, (pixel / {info.white:g} - {info.mean}) / {info.std}")
