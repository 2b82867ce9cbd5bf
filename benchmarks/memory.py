"""Memory of a step, masked against the same network without masks: the most that lives at one time."""

import gc
import json
import tempfile
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from benchmarks.network import batch_of, network, ours, stepper
from benchmarks.timing import Row
from hidden_subnet.masks.topk import SelectionBuffers


def rows(names: tuple[str, ...], width: float, batch: int) -> list[Row]:
    return [row for name in names for row in _rows(name, width, batch)]


def _rows(name: str, width: float, batch: int) -> list[Row]:
    mine, floor = peak(name, width, batch, masked=True), peak(name, width, batch, masked=False)
    topic = f"memory of a step of {name}, batch {batch}"
    return [
        Row(topic=topic, name="ours", unit="MiB", samples=[mine / 2**20]),
        Row(topic=topic, name="without masks", unit="MiB", samples=[floor / 2**20]),
        Row(topic=topic, name="ours / without masks", unit="x", samples=[mine / floor], goal=1.10),
    ]


def peak(name: str, width: float, batch: int, masked: bool) -> int:
    """Bytes of all tensors in building the network and two steps, and of the buffers in which masks are made.

    By torch's own count, which is the same every time; what the process has from the system depends on malloc.
    """
    gc.collect()
    buffers = SelectionBuffers()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        rule_for = ours(buffers) if masked else None
        step = stepper(network(name, width, rule_for), batch_of(batch))
        step()
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    counted = [event for event in events if event.get("name") == "[memory]"]
    counted.sort(key=lambda event: event["ts"])
    # The count continues that of earlier profiles in the process.
    before = counted[0]["args"]["Total Allocated"] - counted[0]["args"]["Bytes"]
    most = max(event["args"]["Total Allocated"] for event in counted)
    return int(most - before + sum(buffer.nbytes for buffer in vars(buffers).values()))
