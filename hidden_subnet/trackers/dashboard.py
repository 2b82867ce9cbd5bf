"""A saved workspace of a project on W&B, by wandb-workspaces: the panels that fit what every run sends."""

from collections.abc import Sequence
from typing import Any

from hidden_subnet.config.differences import flat, varying
from hidden_subnet.errors import ConfigError
from hidden_subnet.store.read import Run
from hidden_subnet.trackers import sent
from hidden_subnet.trackers.wandb_environment import placed
from hidden_subnet.trackers.wandb_tracker import PARTS, answering, default_entity, prepare

NAME, VIEW = "hidden_subnet", "hiddensubnet"
"""The workspace's name in W&B's menu, and its name in addresses, by which it is found again: ?nw=hiddensubnet."""
ALWAYS = ("method.name", "model.name", "prune_rate")
"""Settings among the parallel coordinates, whether or not they vary."""
TOP1 = "last/test/top1"


def save_dashboard(runs: Sequence[Run], project: str | None, entity: str | None) -> str:
    """Make the workspace, or bring it to its first state again, and return its address.

    runs: those of the folder; they say where they were sent, and which settings vary. project, entity: given by the
    user. Raises ConfigError where wandb-workspaces is not installed, or W&B has no such project.
    """
    try:
        from wandb_workspaces.workspaces import internal
    except ImportError:
        rule = "needs the package wandb-workspaces (pip install 'hidden_subnet[dashboard]')"
        raise ConfigError(f"dashboard: {rule}; type: pip install wandb-workspaces") from None

    prepare(None)
    before = next((found for run in runs if (found := sent.read(run.folder)) is not None), sent.Sent(""))
    project, entity = placed(project or before.arguments.get("project"), entity or before.arguments.get("entity"))
    with answering():
        entity = entity or default_entity()
        workspace = workspace_of(runs, project, entity)
        workspace._internal_name = f"nw-{VIEW}-v"
        workspace._internal_id = _known(internal, entity, project)
        internal.upsert_view2(_grouped_in_the_list_only(workspace._to_model()))
        return str(workspace.url)


def _grouped_in_the_list_only(view: Any) -> Any:
    """Have runs grouped by sweep in the list beside the panels, while a panel shows runs, or the groups that it names.

    Else a panel would have a mean of all runs of a sweep, whatever their settings.
    """
    section = view.spec.section
    for settings in (section.settings, *(each.local_panel_settings for each in section.panel_bank_config.sections)):
        settings.use_runs_table_grouping_in_panels = False
    return view


def _known(internal: Any, entity: str, project: str) -> str:
    """Return the id of the workspace on W&B, or "" if there is none yet."""
    try:
        return str(internal.get_view_dict(entity, project, VIEW)["id"])
    except ValueError as error:
        if str(error).startswith("Project"):
            rule = "W&B has no such project, or the key may not see it"
            raise ConfigError(f"{entity}/{project}: {rule}; as in: --entity {entity} --project hidden_subnet") from None
        return ""


def settings_shown(runs: Sequence[Run]) -> list[str]:
    """Return the dotted names of the settings that are parallel coordinates: a few, and those that vary."""
    flats = [flat(run.projection) for run in runs if run.projection]
    return [*dict.fromkeys((*ALWAYS, *(varying(flats) if flats else ())))]


def workspace_of(runs: Sequence[Run], project: str, entity: str) -> Any:
    """Return the workspace, of wandb_workspaces' class Workspace; nothing is sent."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    def column(path: str) -> Any:
        part = path.removesuffix(".name")
        # Dotted columns of ours are one key, and wandb-workspaces takes a dot for a step into a mapping.
        return panels.Config(part if part in PARTS or "." not in path else f"config.{path}")

    def by_method(title: str, *metrics: str, how: str = "mean") -> Any:
        return panels.BarPlot(title=title, metrics=list(metrics), groupby=panels.Config("method"), groupby_aggfunc=how)

    def curve(title: str, *metrics: str, **more: Any) -> Any:
        return panels.LinePlot(title=title, x="epoch", y=list(metrics), title_x="epoch", **more)

    rate, accuracy = panels.Config("prune_rate"), panels.SummaryMetric(TOP1)
    sections = [
        ws.Section(
            name="accuracy against prune_rate",
            panels=[
                panels.CustomChart(  # the chart in the summary run of each sweep (trackers/summary.py)
                    query={"summaryTable": {"tableKey": "accuracy_table"}},
                    chart_name="wandb/lineseries/v0",
                    chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
                    chart_strings={"title": "test accuracy (%) by method, means of sweeps", "xname": "prune rate"},
                ),
                panels.CustomChart(
                    query={"config": {"keys": ["method", "prune_rate"]}, "summary": {"keys": [TOP1]}},
                    chart_name="wandb/lineseries/v0",
                    chart_fields={"step": "prune_rate", "lineKey": "method", "lineVal": TOP1},
                    chart_strings={"title": "test accuracy by method, all runs", "xname": "prune rate"},
                ),
                panels.ScatterPlot(title="test accuracy of each run", x=rate, y=accuracy, range_x=(0, 1)),
                by_method("test accuracy by method", TOP1),
                panels.MediaBrowser(title="figures of sweeps", media_keys=["figure"]),
            ],
            is_open=True,
        ),
        ws.Section(
            name="learning curves",
            panels=[
                curve("validation accuracy", "validation/top1"),
                curve("validation accuracy by method", "validation/top1", groupby=panels.Config("method"),
                      groupby_aggfunc="mean", groupby_rangefunc="minmax"),
                curve("loss", "train/loss", "validation/loss", log_y=True),
                curve("learning rate", "lr"),
            ],
            is_open=True,
        ),
        ws.Section(
            name="density and flip rate by layer",
            panels=[
                panels.LinePlot(title="density by layer", x="epoch", metric_regex="^density/", title_x="epoch"),
                panels.LinePlot(
                    title="flip rate by layer", x="epoch", metric_regex="^flip_rate/", title_x="epoch", log_y=True
                ),
                curve("density", "density", "density_all"),
                curve("flip rate", "flip_rate", log_y=True),
            ],
        ),
        ws.Section(
            name="settings",
            panels=[
                panels.ParallelCoordinatesPlot(
                    title="settings and test accuracy",
                    columns=[
                        *(panels.ParallelCoordinatesPlotColumn(column(path)) for path in settings_shown(runs)),
                        panels.ParallelCoordinatesPlotColumn(accuracy, "test accuracy"),
                    ],
                ),
                panels.ParameterImportancePlot(with_respect_to=TOP1),
            ],
        ),
        ws.Section(
            name="collapsed and failed",
            panels=[
                by_method("collapsed runs", "collapsed", how="sum"),
                by_method("failed runs", "failed", how="sum"),
                panels.ScatterPlot(title="collapsed runs, by prune_rate", x=rate, y=panels.SummaryMetric("collapsed")),
                panels.WeavePanelSummaryTable(table_name="runs"),
            ],
        ),
    ]  # fmt: skip
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group")],
            pinned_columns=["run:state", "config:method.value", "config:prune_rate.value", f"summary:{TOP1}"],
        ),
    )
