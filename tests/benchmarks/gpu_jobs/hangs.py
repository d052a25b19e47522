import subprocess
import time

from agd_core.basics.atomic import write_bytes


def run(place):
    place.row("t", {"a": 1})
    child = subprocess.Popen(["sleep", "1000000"])
    write_bytes(str(child.pid).encode(), place.folder / "child")
    while True:
        time.sleep(1000)
