"""What a machine without Docker and without a cluster can check of prefect.yaml and deployments/."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from prefect.flows import Flow
from prefect.settings import Settings
from prefect.settings.legacy import _get_valid_setting_names

from flows.lab.pool import POOL, QUEUE_PRIORITIES
from flows.machine.device_lease import lease_file

ROOT = Path(__file__).resolve().parent.parent
DOCKER, KUBERNETES = ROOT / "deployments" / "docker", ROOT / "deployments" / "kubernetes"
TEMPLATES = [DOCKER / "job-template.json", KUBERNETES / "job-template.json"]
SOURCES = [*ROOT.glob("flows/**/*.py"), *ROOT.glob("storage/**/*.py")]
LEASES = "/leases"
ENGINE = "python -m flows.lab.engine"
PLACEHOLDER = re.compile(r"{{ *([\w.]+) *}}")
NOT_RUN = re.compile(r"NOT (run|built|applied)")
ELSEWHERE_READ = {
    "HF_HOME",  # huggingface_hub
    "PYTHONUNBUFFERED",
}
"""Beside the settings of Prefect and what our sources name."""


def deployments() -> list[dict]:
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def manifests() -> list[dict]:
    return [part for file in sorted(KUBERNETES.glob("*.yaml")) for part in yaml.safe_load_all(file.read_text())]


def manifest(kind: str) -> dict:
    (found,) = [part for part in manifests() if part["kind"] == kind]
    return found


def template(path: Path) -> dict:
    return json.loads(path.read_text())


def pod_of_a_run() -> dict:
    return template(TEMPLATES[1])["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def instructions_of(kind: str) -> list[str]:
    return [rest for word, rest in instructions() if word == kind]


def image_environment() -> dict[str, str]:
    pairs = [pair for rest in instructions_of("ENV") for pair in rest.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def is_read(name: str) -> bool:
    """Whether Prefect or we read this environment variable."""
    settings = _get_valid_setting_names(Settings)
    kubernetes = name.startswith("PREFECT_INTEGRATIONS_KUBERNETES_")  # checked by hand in prefect-kubernetes 0.8.0
    ours = name.startswith(("AGD_", "AWS_")) and any(name in path.read_text() for path in SOURCES)
    return name in settings or kubernetes or ours or name in ELSEWHERE_READ


@pytest.mark.parametrize("deployment", deployments(), ids=lambda d: d["name"])
def test_every_entrypoint_is_a_flow_and_runs_in_a_queue_that_the_lab_makes(deployment):
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    assert isinstance(flow, Flow)
    assert flow.name == deployment["name"]
    assert deployment["work_pool"]["name"] == POOL
    assert deployment["work_pool"]["work_queue_name"] in QUEUE_PRIORITIES


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.parent.name)
def test_a_run_can_set_nothing_of_its_container(path):
    """No variable, no placeholder, and no `env` that Prefect would merge a run's own into."""
    assert template(path)["variables"]["properties"] == {}
    assert PLACEHOLDER.findall(json.dumps(template(path)["job_configuration"])) == []
    assert "env" not in template(path)["job_configuration"]
    assert template(path)["job_configuration"]["command"] == ENGINE


def test_containers_hold_no_rights_that_they_do_not_need():
    assert instructions_of("USER") == ["agd"]
    for service in ("lab", "worker"):
        assert compose()["services"][service]["cap_drop"] == ["ALL"]
        assert compose()["services"][service]["security_opt"] == ["no-new-privileges:true"]
    created = template(TEMPLATES[0])["job_configuration"]["container_create_kwargs"]
    assert (created["cap_drop"], created["security_opt"]) == (["ALL"], ["no-new-privileges"])
    for pod in (pod_of_a_run(), manifest("Deployment")["spec"]["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert [source["secretRef"]["name"] for source in container["envFrom"]] == ["agd-lab"]


def test_no_deployment_asks_for_more_than_a_place_in_a_queue():
    """What a run is started with is the worker's and the template's affair (docs/security.md)."""
    assert {key for d in deployments() for key in d["work_pool"]} == {"name", "work_queue_name"}


def test_every_environment_variable_is_read_by_somebody():
    services = {name: service for name, service in compose()["services"].items() if name != "database"}
    named = {name for service in services.values() for name in service["environment"]} | set(image_environment())
    named |= {entry["name"] for entry in pod_of_a_run()["containers"][0]["env"]}
    named |= {entry["name"] for entry in manifest("Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert {"PREFECT_API_URL", "AGD_LEASE_FOLDER", "AWS_ENDPOINT_URL"} <= named
    assert {name for name in named if not is_read(name)} == set()
    assert not is_read("PREFECT_API_ULR")
    assert not is_read("AGD_LEASE_DIRECTORY")


def test_what_compose_asks_for_is_in_the_example_of_its_settings():
    asked = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    offered = set(re.findall(r"^(\w+)=", (DOCKER / "lab.env.example").read_text(), re.M))
    assert asked == offered


def test_compose_lets_nobody_in_by_default():
    lab = compose()["services"]["lab"]
    assert lab["ports"] == ["${BIND:-127.0.0.1}:4200:4200"]
    assert lab["environment"]["PREFECT_SERVER_API_AUTH_STRING"].startswith("${PREFECT_AUTH:?")
    assert "ports" not in compose()["services"]["database"]
    example = (DOCKER / "lab.env.example").read_text()
    assert re.search(r"^BIND=127\.0\.0\.1$", example, re.M)
    assert re.findall(r"^\w*(?:PASSWORD|AUTH|KEY\w*)=(.+)$", example, re.M) == []


def test_containers_that_share_a_gpu_share_its_lease(monkeypatch):
    import torch

    folder = image_environment()["AGD_LEASE_FOLDER"]
    monkeypatch.setenv("AGD_LEASE_FOLDER", folder)
    assert lease_file(torch.device("cpu")).parent == Path(LEASES)

    for name in ("lab", "worker"):
        mounts = [mount for mount in compose()["services"][name]["volumes"] if isinstance(mount, dict)]
        assert [(mount["type"], mount["target"]) for mount in mounts] == [("bind", LEASES)]
    volumes = template(TEMPLATES[0])["job_configuration"]["volumes"]
    assert [volume for volume in volumes if volume.startswith("/") and volume.endswith(f":{LEASES}")]
    pod = pod_of_a_run()
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == LEASES]
    assert [volume for volume in pod["volumes"] if volume["name"] == mount["name"] and "hostPath" in volume]


def test_a_run_gets_a_gpu_and_nothing_but_a_run_does():
    assert pod_of_a_run()["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "gpu" not in json.dumps(manifest("Deployment")["spec"]["template"]["spec"]["containers"][0]["resources"])
    assert template(TEMPLATES[0])["job_configuration"]["container_create_kwargs"]["device_requests"]
    assert compose()["services"]["lab"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert "deploy" not in compose()["services"]["database"]


def test_kubernetes_names_agree():
    names = {part["kind"]: part["metadata"]["name"] for part in manifests()}
    job = template(TEMPLATES[1])["job_configuration"]
    worker = manifest("Deployment")["spec"]["template"]
    binding = manifest("RoleBinding")
    assert {part["metadata"]["namespace"] for part in manifests() if part["kind"] != "Namespace"} == {
        names["Namespace"]
    }
    assert {job["namespace"], job["job_manifest"]["metadata"]["namespace"]} == {names["Namespace"]}
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod_of_a_run()["volumes"]
        if len(volume) == 2 and "persistentVolumeClaim" in volume
    ]
    assert claims == [names["PersistentVolumeClaim"]]
    assert binding["roleRef"]["name"] == names["Role"]
    assert binding["subjects"][0]["name"] == worker["spec"]["serviceAccountName"] == names["ServiceAccount"]
    assert (
        pod_of_a_run()["containers"][0]["envFrom"][0]["secretRef"]["name"]
        == worker["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"]
    )
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == worker["metadata"]["labels"]


def test_the_workers_poll_the_pool_of_prefect_yaml():
    started = [compose()["services"]["worker"]["command"]]
    started += [manifest("Deployment")["spec"]["template"]["spec"]["containers"][0]["command"]]
    assert [command[command.index("--pool") + 1] for command in started] == [POOL] * 2
    assert started[0][:5] == ["python", "-m", "flows.lab.worker", "worker", "start"]


def test_the_image_holds_what_the_package_needs():
    copied = [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
    sent = [line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert sorted(copied) == sorted(sent)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    build = (ROOT / "pyproject.toml").read_text()
    packaged = [*re.findall(r'^"([\w./-]+)" = "flows/', build, re.M), "README.md", "LICENSE", "pyproject.toml"]
    assert len(packaged) > 3
    assert {path.split("/")[0] for path in packaged} <= set(copied)


def test_every_file_says_what_was_not_run():
    labelled = [DOCKER / "Dockerfile", DOCKER / "compose.yaml", *KUBERNETES.glob("*.yaml"), *TEMPLATES]
    assert [path.name for path in labelled if not NOT_RUN.search(path.read_text())] == []


def test_the_page_names_every_file():
    page = (ROOT / "docs" / "beyond-one-machine.md").read_text()
    files = [path for folder in (DOCKER, KUBERNETES) for path in folder.iterdir() if not path.name.endswith("ignore")]
    assert [path.name for path in files if f"`{path.relative_to(ROOT).as_posix()}`" not in page] == []
