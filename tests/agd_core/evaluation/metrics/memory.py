"""How much memory something takes, measured in a process of its own."""

import subprocess
import sys

_PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024"


def peak_growth(code: tuple[str, str]) -> float:
    """MB by which the second piece of code raises the peak that the first one left."""
    prepare, work = code
    program = f"{prepare}\nbefore = {_PEAK}\n{work}\nprint({_PEAK} - before)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(found.stdout)
