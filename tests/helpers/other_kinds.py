"""Make files that are no regular ones: pipes, sockets, devices and links that lead nowhere."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


def socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o666)


def device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("making a device needs root")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o666)


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name(".pipe"))
    path.symlink_to(".pipe")


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


KINDS: list[Callable[[Path], None]] = [pipe, socket, device, link_to_a_pipe, dangling_link, loop, Path.mkdir]
