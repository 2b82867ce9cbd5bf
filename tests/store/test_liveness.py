"""Who is alive: another user's processes, cloned machines, clocks that differ, and heartbeats that stop."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers.claiming import SILENT, claim, foreign, in_child, state, stop_heartbeat
from helpers.unanswered import unanswered

from hidden_subnet.store import claims, files, liveness, machine
from hidden_subnet.store.claims import Attempt, run_status
from hidden_subnet.store.liveness import BEATS, MISSED, LivenessProbe, Observation, beat, heartbeat, holder_from
from hidden_subnet.store.patience import is_passing

ROOT = Path(__file__).parents[2]
LATE = SILENT * MISSED / BEATS
FAR = 1e9
"""Seconds; about 30 years."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "run-0123456789ab"
    folder.mkdir(parents=True)
    return folder


class Reader:
    """Somebody on another machine who looks at a run, again and again or for the first time."""

    def __init__(self, run: Path) -> None:
        self.run, self.now, self.seen = run, 1000.0, dict[Path, Observation]()
        self.in_doubt = 0.0

    def state(self, later: float = 0.0) -> str:
        self.now += later
        probe = LivenessProbe(self.run.parent, lambda: None, seen=self.seen, monotonic=lambda: self.now)
        found = run_status(self.run, probe).state
        self.in_doubt = probe.in_doubt
        return found


def stamp(attempt: Attempt, ahead: float) -> None:
    """Give the heartbeat the time that a clock would, which is so many seconds ahead of the reader's."""
    when = liveness.clock(attempt.run.parent) + ahead
    os.utime(attempt.folder / claims.CLAIM, (when, when))


CLOCKS = [0.0, -120.0, 120.0, -FAR, FAR]


@pytest.mark.parametrize("ahead", CLOCKS)
def test_whoever_beats_is_alive_whatever_the_clocks_say(ahead: float, run: Path) -> None:
    attempt, reader = foreign(run), Reader(run)
    for _ in range(30):
        beat(attempt.folder / claims.CLAIM)
        stamp(attempt, ahead)
        assert reader.state(later=SILENT / 2) == "running"
        assert Reader(run).state() == "running"  # somebody who looks for the first time


@pytest.mark.parametrize("ahead", CLOCKS)
def test_whoever_is_silent_is_dead_in_the_end_whatever_the_clocks_say(ahead: float, run: Path) -> None:
    attempt, reader = foreign(run), Reader(run)
    stamp(attempt, ahead)
    # Where the stamp is that of a living holder, only the reader's own clock counts; else three heartbeats are enough.
    seconds = LATE if ahead else SILENT
    assert reader.state() == "running"
    assert reader.in_doubt == (LATE if ahead else 0)
    assert reader.state(later=seconds - 1) == "running"
    assert reader.state(later=1) == "lost"


@pytest.mark.parametrize("ahead", CLOCKS)
def test_holder_that_was_seen_alive_has_all_of_silent_seconds(ahead: float, run: Path) -> None:
    attempt, reader = foreign(run), Reader(run)
    stamp(attempt, ahead)
    assert reader.state() == "running"
    beat(attempt.folder / claims.CLAIM)
    stamp(attempt, ahead)
    assert reader.state(later=1) == "running"
    assert reader.state(later=SILENT - 1) == "running"
    assert reader.state(later=1) == "lost"
    beat(attempt.folder / claims.CLAIM)  # it was suspended, and wakes
    assert reader.state() == "running"


def test_pause_of_the_reader_is_no_silence_of_the_holder(run: Path) -> None:
    attempt, reader = foreign(run), Reader(run)
    assert reader.state() == "running"
    beat(attempt.folder / claims.CLAIM)
    assert reader.state(later=100 * SILENT) == "running"


def test_time_in_which_a_file_server_does_not_answer_is_no_silence(run: Path) -> None:
    foreign(run)
    reader = Reader(run)
    assert reader.state() == "running"
    with unanswered(errno.EIO, claims.CLAIM), pytest.raises(OSError, match="Input/output"):
        reader.state(later=2)
    assert reader.state(later=100 * SILENT) == "running"  # the first answer; the holder could not write either
    assert reader.state(later=SILENT - 1) == "running"
    assert reader.state(later=1) == "lost"


@pytest.mark.parametrize("ended", ['{"state": "running", "message": ""}', '{"state": "foo", "message": ""}', "7"])
def test_end_that_no_attempt_has_is_damaged(ended: str, run: Path) -> None:
    attempt = foreign(run)
    (attempt.folder / claims.ENDED).write_text(ended)
    found = run_status(run, LivenessProbe(run.parent, lambda: None))
    assert (found.state, found.message) == ("lost", f"{attempt.folder / claims.ENDED} cannot be read")


def test_numbers_of_attempts_are_plain(run: Path) -> None:
    for name in ("²", "٣", "007", "0", "1e3", "9" * 30):
        (run / files.ATTEMPTS / name).mkdir(parents=True)
    assert files.attempts(run) == []


def test_heartbeats_in_one_second_differ_where_times_are_whole_seconds(run: Path) -> None:
    file = claim(run).folder / claims.CLAIM
    found = []
    for _ in range(3):
        beat(file)
        os.utime(file, (1e9, 1e9))
        found.append(heartbeat(file))
    assert len(set(found)) == 3


def test_stamp_of_long_ago_is_believed_by_those_who_only_show_it(run: Path) -> None:
    stamp(foreign(run), -2 * liveness.DAY)
    assert run_status(run, LivenessProbe(run.parent, lambda: None)).state == "running"
    assert run_status(run, LivenessProbe(run.parent, lambda: None, glance=True)).state == "lost"


@pytest.mark.parametrize(
    ("alive", "expected", "looks"), [(True, "running", 3), (False, "lost", LATE / liveness.LOOK_SECONDS)]
)
def test_one_who_looks_once_waits_until_it_can_tell(
    alive: bool, expected: str, looks: float, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, reader = foreign(run), Reader(run)
    stamp(attempt, -120)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        reader.now += seconds
        if len(slept) == 3 and alive:
            beat(attempt.folder / claims.CLAIM)
            stamp(attempt, -120)

    monkeypatch.setattr(liveness.time, "sleep", sleep)
    probe = LivenessProbe(run.parent, lambda: None, monotonic=lambda: reader.now)
    assert liveness.settle(lambda probe: run_status(run, probe), probe).state == expected
    assert len(slept) == looks


OTHER_USER = """
import os, sys
from pathlib import Path
from hidden_subnet.store.claims import run_status
from hidden_subnet.store.liveness import LivenessProbe, holder_from
from hidden_subnet.store.machine import lives
out, pid, started, gone = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
os.setgroups([])
os.setresgid(12345, 12345, 12345)
os.setresuid(12345, 12345, 12345)
print(os.path.exists(f"/proc/{pid}"), lives(pid, started), lives(gone, "1"))
now, seen = 0.0, {}
for now in (0.0, 59.0, 61.0):
    probe = LivenessProbe(out, lambda: None, seen=seen, monotonic=lambda: now)
    print(run_status(out / "run", probe).state)
private = run_status(out / "private", probe)
print(private.state, private.unreadable)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can reach; those of pytest are private."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, who becomes another user")
@pytest.mark.parametrize("options", ["hidepid=0", "hidepid=1", "hidepid=2"])
def test_process_that_another_user_cannot_see_is_not_dead(options: str, shared: Path) -> None:
    (shared / "run").mkdir()
    claim(shared / "run")
    (shared / "private").mkdir()
    claim(shared / "private").folder.parent.chmod(0o700)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mount = f'mount -t proc -o {options} proc /proc && exec "$@"'
    arguments = [shared, str(os.getpid()), machine.process_start(os.getpid()), str(gone.pid)]
    said = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", OTHER_USER, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    # Where the kernel shows that it lives its silence does not matter; else its heartbeat decides.
    shown, silent = ("True True", "running") if options == "hidepid=0" else ("True None", "lost")
    shown = "False None" if options == "hidepid=2" else shown
    assert said.stdout.splitlines() == [f"{shown} False", "running", "running", silent, "failed True"]


def test_without_a_free_descriptor_nobody_is_dead(run: Path) -> None:
    pid, started = os.getpid(), machine.process_start(os.getpid())
    claim(run)

    def look() -> None:
        taken = os.open("/dev/null", os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 1, taken + 1))
        assert machine.lives(pid, started) is None
        assert machine.lives(2**22 + 1, "1") is False
        with pytest.raises(OSError, match="Too many open files") as error:
            run_status(run, LivenessProbe(run.parent))
        assert is_passing(error.value)

    assert in_child(look) == 0


def die(run: Path) -> Attempt:
    """Leave a claim whose process has died."""
    assert in_child(lambda: claim(run)) == 0
    [number] = files.attempts(run)
    return Attempt(run, number, claims.holder_of(run / files.ATTEMPTS / str(number)))


def test_clone_of_this_machine_does_not_judge_by_its_own_processes(run: Path) -> None:
    """A clone has our boot id and namespaces; its processes are not ours, whether it has another host name or not."""
    attempt = die(run)
    me = attempt.me
    for holder, expected in (
        (me, "lost"),  # the control: that process is known to be of this machine
        (replace(me, host="clone"), "running"),
        (replace(me, machine=f"{machine.this_machine()} 0123456789abcdef"), "running"),
        (replace(me, machine=machine.this_machine()), "lost"),  # a claim of 0.1.0
        (replace(me, machine=machine.this_machine(), host="clone"), "running"),
        (replace(me, machine=f"{machine.this_machine()} ../../../dev/null"), "running"),
    ):
        (attempt.folder / claims.CLAIM).write_text(json.dumps(asdict(holder)))
        assert state(run) == expected, holder
    (attempt.folder / claims.CLAIM).write_text(json.dumps(asdict(replace(me, host="clone"))))
    stop_heartbeat(attempt)
    assert state(run) == "lost"


def test_mark_of_a_holder_is_removed_at_its_end(run: Path) -> None:
    attempt = die(run)
    assert liveness.is_here(attempt.me)
    claim(run).release()
    assert not liveness.is_here(attempt.me)
    attempt = claim(run)
    assert liveness.is_here(attempt.me)
    with attempt:
        claims.end(attempt.folder, "failed", "it did")
    assert not liveness.is_here(attempt.me)


def test_claim_has_the_fields_that_version_0_1_0_reads(run: Path) -> None:
    """It would take a claim with any other field for damaged, and execute the run a second time."""
    assert json.loads((claim(run).folder / claims.CLAIM).read_text()).keys() == {
        "host", "machine", "pid", "started", "slurm", "restart", "worker", "silent_seconds", "at", "launch",
    }  # fmt: skip


VALID = {
    "host": "h", "machine": "m", "pid": 1, "started": "1", "slurm": None, "restart": 0, "worker": "",
    "silent_seconds": 90.0, "at": "",
}  # fmt: skip


def test_holder_of_a_later_version_is_read() -> None:
    assert holder_from(VALID | {"a_field_of_later": 1}).silent_seconds == 90


@pytest.mark.parametrize(
    "wrong",
    [
        {"pid": "1"}, {"pid": 0}, {"pid": -1}, {"pid": 10**400}, {"pid": 1.5}, {"host": 1}, {"slurm": 3},
        {"restart": "0"}, {"silent_seconds": "90"}, {"silent_seconds": 1e300}, {"silent_seconds": float("nan")},
        {"silent_seconds": float("inf")}, {"silent_seconds": 0}, {"silent_seconds": -1}, {"machine": None},
    ],
)  # fmt: skip
def test_holder_with_a_wrong_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        holder_from(VALID | wrong)


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", [files.RESULT, claims.CLAIM, claims.ENDED, files.ATTEMPTS])
def test_run_whose_files_a_server_does_not_show_is_not_judged(name: str, code: int, run: Path) -> None:
    claim(run)
    with unanswered(code, name), pytest.raises(OSError, match=os.strerror(code)):
        state(run)
    assert state(run) == "running"
