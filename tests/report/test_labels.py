"""A run of a sweep is labelled by the settings that vary in it."""

from collections.abc import Callable

from helpers.run_folders import job

from hidden_subnet.config.settings import Config
from hidden_subnet.store import files
from hidden_subnet.sweep.jobs import Job
from hidden_subnet.sweep.progress import labels

TINY = ("data=synthetic", "model=fc", "model.width=0.1", "train.epochs=1", "tracker=none")
Compose = Callable[..., Config]


def test_labels_are_the_settings_that_vary(compose: Compose) -> None:
    def jobs(*parts: tuple[str, ...]) -> list[Job]:
        configs = [compose(*TINY, *part) for part in parts]
        return [job(config, files.folder_of(config)) for config in configs]

    made = labels(both := jobs(("prune_rate=0.5", "seed=1"), ("prune_rate=0.75", "seed=10")))
    assert made.header == "rate  seed"
    assert [made.lines[each.folder.name] for each in both] == ["0.5   1", "0.75  10"]
    assert [made.words[each.folder.name] for each in both] == ["rate 0.5, seed 1", "rate 0.75, seed 10"]
    made = labels(both := jobs(("method=dense",), ("seeds.weights=3",)))
    assert made.header == "method      rate  weights seed"
    assert [made.lines[each.folder.name] for each in both] == ["dense       -     0", "edge_popup  0.5   3"]
    [one] = jobs(("seed=7",))
    assert labels([one]).lines == {one.folder.name: one.folder.name}
