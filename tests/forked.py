"""Python scripts in processes of their own, which begin at once: a server has imported the package, and forks for each of them.

Used as ``subprocess`` is with ``[sys.executable, "-c", code]``; not for what depends on the start of Python itself.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import DEVNULL, PIPE

SERVER = Path(__file__).with_name("fork_server.py")


@functools.cache
def _server():
    """Start the server, which ends when this process does; return the socket to it. It is no child: labels would notice one."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.run([sys.executable, SERVER, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=DEVNULL, check=True)
    atexit.register(ours.close)
    return ours


class Script:
    """A script that runs: code, arguments, and options as those of ``subprocess.Popen``; its pipes carry text."""

    def __init__(self, code, *arguments, stdin=None, stdout=None, stderr=None, env=None, cwd=None):
        self.returncode = None
        (self.stdin, input_end), *outputs = [_stream(given, number) for number, given in enumerate((stdin, stdout, stderr))]
        (self.stdout, output_end), (self.stderr, error_end) = outputs
        self._status, status = os.pipe()
        ends = [input_end, output_end, error_end, status]
        asked = {"code": code, "arguments": [str(argument) for argument in arguments]}
        data = json.dumps(asked | {"cwd": str(cwd or os.getcwd()), "env": dict(os.environ if env is None else env)}).encode()
        socket.send_fds(_server(), [b"%8d" % len(data)], ends)
        _server().sendall(data)
        for end in ends:
            os.close(end)
        self.pid = int(_line(self._status))

    def poll(self, timeout=0.0):
        """Return the exit status, or None while the script runs."""
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(os.read(self._status, 16) or -signal.SIGKILL)  # nothing: the server is gone
            os.close(self._status)
        return self.returncode

    def wait(self, timeout=None):
        """Wait for the end, and return the exit status."""
        if self.poll(timeout) is None:
            raise subprocess.TimeoutExpired("a script", timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """Return what the script writes to its output and errors until they close; None where they are no pipes."""
        if self.stdin:
            self.stdin.close()
        written, readers = {}, []
        for pipe in filter(None, (self.stdout, self.stderr)):
            readers.append(threading.Thread(target=lambda pipe=pipe: written.update({pipe: pipe.read()}), daemon=True))
            readers[-1].start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("a script", timeout)
        self.wait(timeout)
        for pipe in written:
            pipe.close()
        return written.get(self.stdout), written.get(self.stderr)

    def send_signal(self, number):
        """Send a signal, unless the script has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(code, *arguments, check=False, **options):
    """Run a script to its end, as ``subprocess.run`` does with ``capture_output=True, text=True``."""
    script = Script(code, *arguments, stdout=PIPE, stderr=PIPE, **options)
    output, errors = script.communicate()
    if check:
        assert script.returncode == 0, errors
    return subprocess.CompletedProcess("a script", script.returncode, output, errors)


def _stream(given, number):
    """Return our end of a pipe, or None; and the descriptor that the script gets."""
    if given is PIPE:
        reading, writing = os.pipe()
        return (open(writing, "w"), reading) if number == 0 else (open(reading), writing)
    return None, os.open(os.devnull, os.O_RDWR) if given is DEVNULL else os.dup(number if given is None else given)


def _line(descriptor):
    said = b""
    while not said.endswith(b"\n"):
        said += (one := os.read(descriptor, 1))
        assert one, "the server of scripts has ended"
    return said
