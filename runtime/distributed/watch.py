"""A process that watches over one that works: it says which rank was killed, and by what.

MPI launchers kill all processes of a program as soon as one has died, so that nobody would be left to say which.
`begin` forks: the child works on, and the parent, which is the process that the launcher knows, waits for it, says how
it died, and then dies in the same way. Both are of one process group, to which launchers send signals; a signal that
came to the parent alone it passes on. Where the parent is killed the child says so: the launcher does not know of it.

The two share a page: whether MPI has begun, whether the child has said itself why it ends, and what it is at.
"""

from __future__ import annotations

import _thread
import os
import resource
import signal
import socket
import sys
from math import inf
from mmap import mmap
from select import select
from time import monotonic, sleep
from typing import NoReturn

from ...dsl.errors import RankError, error
from .launch import Launch

_PAGE = 4096
_BEGUN, _TOLD, _TEXT = 0, 1, 2  # where in the page what stands
_START = 45.0  # seconds that MPI may take to begin
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_SAME = 0.2  # seconds between the two arrivals of a signal that came to the group

_SPOKEN = 0.5  # seconds that a launcher takes to end all

_page: mmap | None = None  # of a process that is watched


def begin(launch: Launch) -> None:
    """Have this process watched: before there are threads, and before MPI. Returns in the child alone."""
    global _page
    page = mmap(-1, _PAGE)
    above, below = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        below.close()
        _Watcher(launch, child, above, page).watch()
    above.close()
    below.setblocking(False)
    signal.set_wakeup_fd(below.fileno(), warn_on_full_buffer=False)  # tells the parent which signals came here
    _page = page
    _thread.start_new_thread(_until_alone, (below, launch, page))


def begun() -> None:
    """MPI has begun: from now on waits have limits of their own."""
    if _page is not None:
        _page[_BEGUN] = 1


def told() -> None:
    """This process has said why it ends, or another does: the watcher need not."""
    if _page is not None:
        _page[_TOLD] = 1


def at(where: str) -> None:
    """What this process is at, for what is said when it is killed."""
    if _page is not None:
        text = where.encode()[: _PAGE - _TEXT - 1] + b"\0"
        _page[_TEXT : _TEXT + len(text)] = text


def _where(page: mmap) -> str:
    text = bytes(page[_TEXT:]).partition(b"\0")[0].decode(errors="replace")
    return f" at {text}" if text else ""


def _until_alone(parent: socket.socket, launch: Launch, page: mmap) -> None:
    """End when the parent has ended, which never sends anything. In a thread of its own."""
    select([parent], [], [])
    _say(launch, f"was killed{_where(page)}: the process is gone that the launcher started")
    os._exit(1)


def _say(launch: Launch, what: str, help: str | None = None) -> None:
    message = error("E0618", f"rank {launch.rank} on {socket.gethostname()} {what}", kind=RankError, help=help)
    os.write(2, f"{message}\n".encode())


class _Watcher:
    """The parent."""

    def __init__(self, launch: Launch, child: int, link: socket.socket, page: mmap):
        self.launch, self.child, self.link, self.page = launch, child, link, page
        self._came: dict[int, float] = {}  # signals that came here and are not yet dealt with, and when
        self._below: dict[int, float] = {}  # signals that came to the child
        self._ever: set[int] = set()  # signals that came here
        for number in _SIGNALS:
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: object) -> None:
        self._came[number] = monotonic()
        self._ever.add(number)

    def watch(self) -> NoReturn:
        """Wait until the child has ended; end as it did."""
        looks = (_START + 2 * min(self.launch.rank, 1)) / _SAME  # until MPI has begun; one of them speaks
        while True:
            self._look()
            looks -= 1
            ended, status = os.waitpid(self.child, os.WNOHANG)
            if ended:
                self._end(os.waitstatus_to_exitcode(status))
            self._pass_on()
            if not self.page[_BEGUN] and looks < 0:
                _say(self.launch, f"has waited for {_START:.0f} s for all processes to begin: not all do")
                os.kill(self.child, signal.SIGKILL)
                _die(signal.SIGKILL)

    def _look(self) -> None:
        """Wait for a moment: which signals came to the child?"""
        if select([self.link], [], [], _SAME)[0]:
            numbers = self.link.recv(256)
            self._below.update(dict.fromkeys(numbers, monotonic()))
            if not numbers:
                sleep(0.02)  # the child is about to end

    def _pass_on(self) -> None:
        for number, when in list(self._came.items()):
            if monotonic() > when + _SAME:
                del self._came[number]
                if self._below.get(number, -inf) < when - _SAME:
                    os.kill(self.child, number)

    def _end(self, code: int) -> NoReturn:
        """`code` is an exit code, or a signal as a negative number."""
        at = _where(self.page)
        silent = self.page[_TOLD] or -code in self._ever or code - 128 in _SIGNALS  # interrupted, and says so
        if code < 0:
            if not silent:
                help = "perhaps for want of memory" if -code == signal.SIGKILL else None
                _say(self.launch, f"was killed by signal {-code} ({_name(-code)}){at}", help)
            _die(-code)
        if code and not silent:
            sleep(_SPOKEN)  # another rank may have aborted: then the launcher ends this process, too
            _say(self.launch, f"ended with exit code {code}{at}")
        if code and not self.page[_BEGUN]:
            _die(signal.SIGKILL)  # else launchers leave the others waiting for it
        os._exit(code)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"


def _die(number: int) -> NoReturn:
    """End by a signal, and leave no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
