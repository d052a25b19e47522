"""What a run of the lab may name: folders below the lab's own, object stores, clusters that the lab was started with.

A person at a shell may write wherever their account may. A run is asked for through a server, so it writes below the
folder where `agd up` was started and below those that `agd up --folder` names, links followed, and nowhere else.
"""

import os
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from flows.config import PipelineConfig

FOLDERS = "AGD_FOLDERS"
"""Environment variable of flows: the folders below which they may write, with colons between them."""
CLUSTERS = "AGD_CLUSTERS"
"""Environment variable: addresses of Dask and Ray that runs may name, with commas between them."""
_HOME = "AGD_HOME"
_OBJECT_STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss")


def own_folder(name: str, setting: str) -> Path:
    """A folder that a run names, once it is known to be the lab's; outside of a lab it is taken as it is.

    Args:
        name: the folder, relative to the one where flows run.
        setting: what it is called in the form.

    Raises:
        InputError: it lies elsewhere.
    """
    path = Path(name).expanduser()
    try:
        place = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{setting} {printable(name)} is no folder: {printable(error)}") from error
    folders = _folders()
    if folders and not any(place.is_relative_to(folder) for folder in folders):
        allowed = " or ".join(map(printable, folders))
        raise InputError(f"{setting} {printable(name)} is not below {allowed}: agd up --folder DIR adds a folder")
    return path


def check_places(config: PipelineConfig) -> None:
    """Make sure that a configuration writes to the lab's folders or to an object store.

    Raises:
        InputError: its store is elsewhere.
    """
    if not config.store.url or not _folders():
        return
    protocol, separator, _ = config.store.url.partition("://")
    if not separator:
        own_folder(config.store.url, "store.url")
    elif protocol not in _OBJECT_STORES:
        raise InputError(f"store.url {printable(config.store.url)}: a run writes to {', '.join(_OBJECT_STORES)} only")


def check_cluster(address: str) -> None:
    """Make sure that a cluster is one of the lab's: its processes send code to those who ask them to work.

    Raises:
        InputError: it is not.
    """
    ours = [known.strip() for known in os.environ.get(CLUSTERS, "").split(",")]
    if address and _folders() and address not in ours:
        raise InputError(f"fan_out.address {printable(address)} is no cluster of this lab; {CLUSTERS} names them")


def _folders() -> list[Path]:
    given = os.environ.get(FOLDERS) or os.environ.get(_HOME) or ""
    return [Path(folder).resolve() for folder in given.split(os.pathsep) if folder]
