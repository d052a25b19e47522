import os
import signal


def run(place):
    place.row("t", {"a": 1})
    os.kill(os.getpid(), signal.SIGKILL)
