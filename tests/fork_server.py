"""The server of ``forked``: a process that has imported the package and loaded its kernels, and forks for each script.

Run as a script with the number of a socket. For each script come a length, JSON, and four descriptors: its standard streams, and
a pipe on which its process number and in the end its status go back.
"""

import io
import json
import os
import select
import signal
import socket
import sys
import tempfile
import types
import warnings


def load():
    """Import what scripts import, and run once, which loads the kernels; leave the environment as it was."""
    import small_runs

    import amp.nft.cli
    import amp.nft.report  # noqa: F401

    place, environment = os.getcwd(), dict(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        small_runs.run(max_iterations=1)
        os.chdir(place)
    assert os.environ == environment


def serve(line):
    """Fork for each script; return in the child, with what was asked and the standard streams."""
    children = {}
    while True:
        ready = select.select([line], [], [], 0.005 if children else None)[0]
        while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            status = children.pop(ended[0], None)
            if status is not None:  # else a process of the load, such as one that compiles kernels
                os.write(status, str(os.waitstatus_to_exitcode(ended[1])).encode())
                os.close(status)
        if not ready:
            continue
        size, streams, *_ = socket.recv_fds(line, 8, 4)
        if not size:
            os._exit(0)  # the tests are at their end
        asked = line.recv(int(size), socket.MSG_WAITALL)
        status = streams.pop()
        if (pid := os.fork()) == 0:
            for descriptor in (status, *children.values()):
                os.close(descriptor)
            line.close()
            return json.loads(asked), streams
        children[pid] = status
        os.write(status, f"{pid}\n".encode())
        for descriptor in streams:
            os.close(descriptor)


def take(asked, streams, path):
    """Give this process the streams, the directory, the environment, the arguments and the module that its script expects."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), line_buffering=os.isatty(1))
    sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), errors="backslashreplace", line_buffering=True)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv[:] = ["-c", *asked["arguments"]]
    sys.path[:] = ["", *path]
    sys.modules["__main__"] = types.ModuleType("__main__")


if __name__ == "__main__":
    server = sys.modules["__main__"]  # kept, with its names
    path = sys.path[1:]
    if os.fork():
        os._exit(0)  # the server is nobody's child
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would the scripts
    load()
    with warnings.catch_warnings(action="ignore"):  # of the threads of linear algebra, which take care of forks
        asked, streams = serve(socket.socket(fileno=int(sys.argv[1])))
    take(asked, streams, path)
    exec(compile(asked["code"], "<string>", "exec"), sys.modules["__main__"].__dict__)
