"""Kill real collections into a real S3 server on loopback at random moments and check what is left.

python benchmarks/kill_s3.py [--server moto|radosgw|rclone] [--kills 20] [--trajectories 24] [--seed 0]

Two collectors at a time write the units of one store and are killed and started again until it is finished. After
every kill each unit that has a marker must be whole to the byte. Exit code 1 if anything is not as it should be.
"""

import argparse
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.kill_collect import SETTINGS
from benchmarks.killing import KILLED, answer, kill, show, start, wait
from benchmarks.s3_servers import moto_server, radosgw_server, rclone_server
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect_missing, collection_plan
from flows.workplace import Workplace
from storage.errors import Damaged
from storage.objects import LocalObjects, ObjectStore, open_objects
from storage.trajectories.markers import marker_key
from storage.trajectories.verification import store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore

SERVERS = {"moto": moto_server, "radosgw": radosgw_server, "rclone": rclone_server}


class Collector:
    """Collects the same plan into any place."""

    def __init__(self, trajectories: int) -> None:
        self.config = load_config("fashion-dit", [*SETTINGS, f"collect.trajectories={trajectories}"])
        self.run = Run(self.config, Workplace(Path(tempfile.gettempdir()), torch.device("cpu")))
        self.plan = collection_plan(self.run)

    def collect(self, objects: ObjectStore) -> None:
        with warnings.catch_warnings(action="ignore"):
            store = ZarrTrajectoryStore.prepare(objects, self.plan)
        collect_missing(self.run, store, store.missing_units())

    def visible(self, objects: ObjectStore) -> list[int]:
        """(units with a marker, torn ones among them)."""
        try:
            store = ZarrTrajectoryStore.open(objects)
        except (FileNotFoundError, Damaged):
            return [0, 0]
        seen = [unit for unit in range(self.plan.units) if objects.size(marker_key(unit)) is not None]
        return [len(seen), sum(bool(store.unit_problems(unit)) for unit in seen)]

    def final(self, objects: ObjectStore) -> dict[str, Any]:
        store = ZarrTrajectoryStore.open(objects)
        adopted = sum(shard.provenance == "adopted" for shard in store.committed_shards())
        return {"digest": store.content_digest(), "problems": len(store_problems(objects)), "adopted": adopted}


def kill_collections(collector: Collector, base_url: str, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill until so many kills are reached; returns the measured numbers."""
    rng, counts = random.Random(seed), Counter[str]()  # noqa: S311
    began = time.monotonic()
    if wait(start(lambda: collector.collect(LocalObjects(folder / "unbroken")))):
        raise RuntimeError("the unbroken collection failed")
    life, digest = (
        time.monotonic() - began,
        answer(lambda: collector.final(LocalObjects(folder / "unbroken")))["digest"],
    )
    while counts["kills"] < kills:
        url = f"{base_url}/{counts['rounds']}"
        stop_at = counts["kills"] + 4
        while True:
            processes = [start(lambda u=url: collector.collect(open_objects(u))) for _ in range(2)]
            for process in processes if counts["kills"] < stop_at else []:
                time.sleep(rng.uniform(0, life))
                kill(process)
                seen, torn = answer(lambda u=url: collector.visible(open_objects(u)))
                counts["units seen after kills"] += seen
                counts["torn units visible"] += torn
            statuses = [wait(process) for process in processes]
            counts["kills"] += statuses.count(KILLED)
            counts["failed processes"] += sum(status not in (0, KILLED) for status in statuses)
            if not any(statuses):
                break
        found = answer(lambda u=url: collector.final(open_objects(u)))
        counts["rounds"] += 1
        counts["shards adopted"] += found["adopted"]
        counts["problems in finished stores"] += found["problems"]
        counts["content digests unlike the unbroken run's"] += found["digest"] != digest
    return dict(counts)


MUST_BE_ZERO = (
    "torn units visible",
    "problems in finished stores",
    "content digests unlike the unbroken run's",
    "failed processes",
)


def main() -> int:
    """Exit code 0 if everything is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=sorted(SERVERS), default="moto")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trajectories", type=int, default=24, help="of each collection")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    collector = Collector(arguments.trajectories)
    with tempfile.TemporaryDirectory() as folder, SERVERS[arguments.server](folder) as server:
        os.environ |= {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret}
        os.environ |= {"AWS_ENDPOINT_URL": server.endpoint_url, "AWS_DEFAULT_REGION": "us-east-1", "AGD_LEASE": "off"}
        url = f"s3://{server.bucket}/kills"
        result = kill_collections(collector, url, arguments.kills, arguments.seed, Path(folder))
    show({"server": server.name, **result}, as_json=False)
    return int(any(result.get(name) for name in MUST_BE_ZERO))


if __name__ == "__main__":
    sys.exit(main())
