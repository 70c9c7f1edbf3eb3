"""deploy/kubernetes, held against the code and the image without a cluster: settings, ports, probes, times, rights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.adapters import management
from bridge.adapters.spool import FREE_BYTES_MIN
from bridge.app import _DRAIN_MARGIN_S
from bridge.settings import SECRETS, Settings, load
from bridge.workers import _STOP_MARGIN_S
from tests.deploy.description import OURS, ROOT, image_environment, only

KUBERNETES = ROOT / "deploy/kubernetes"
NAME = "instagram-bridge"
LABELS = {"app.kubernetes.io/name": NAME}
GIB = 1024**3


def documents(folder: str) -> list[dict[str, Any]]:
    """What the kustomization of a folder names as its files."""
    named = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text("utf-8"))["resources"]
    files = [KUBERNETES / folder / name for name in named if name.endswith(".yaml")]
    return [document for file in files for document in yaml.safe_load_all(file.read_text("utf-8"))]


BASE = documents("base")
POD = next(each for each in BASE if each["kind"] == "StatefulSet")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
MOUNTS = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}


def of_kind(kind: str, name: str = NAME) -> dict[str, Any]:
    """The spec of the resource of a kind and name."""
    (found,) = [each for each in BASE if each["kind"] == kind and each["metadata"]["name"] == name]
    spec: dict[str, Any] = found["spec"]
    return spec


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What a pod of the example would be set to, as the bridge itself reads it; the Secret's files are in a folder here."""
    lines = "".join((KUBERNETES / folder / "settings.env").read_text("utf-8") for folder in ("base", "example"))
    for variable in CONTAINER["env"]:
        file = tmp_path / Path(variable["value"]).name
        file.write_text("a-secret", "utf-8")
        lines += f"{variable['name']}={file}\n"
    env_file = tmp_path / "pod.env"
    env_file.write_text(lines, "utf-8")
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BRIDGE_{name.upper()}", raising=False)
    return load(Settings, env_file)[0]


def test_every_file_of_the_folder_belongs_to_its_kustomization() -> None:
    """What lies there unnamed would look as if it were applied."""
    for folder in ("base", "example"):
        kustomization = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text("utf-8"))
        named = {*kustomization["resources"], *kustomization["configMapGenerator"][0]["envs"], "kustomization.yaml"}
        assert {path.name for path in (KUBERNETES / folder).iterdir()} == named - {"../base"}


def test_settings_of_a_pod_are_taken_by_the_bridge(settings: Settings) -> None:
    """Each name and value; both ports can be reached from outside the pod; secrets come from files of the mounted Secret."""
    assert (settings.host, settings.management_host) == ("0.0.0.0", "0.0.0.0")  # noqa: S104 - a pod's own network
    assert {variable["name"] for variable in CONTAINER["env"]} <= {f"BRIDGE_{name.upper()}_FILE" for name in SECRETS}
    assert settings.app_secrets.get_secret_value() == settings.verify_token.get_secret_value() == "a-secret"
    assert {str(Path(variable["value"]).parent) for variable in CONTAINER["env"]} == {MOUNTS["secrets"]["mountPath"]}
    assert CONTAINER["envFrom"] == [{"configMapRef": {"name": NAME}}]


def test_ports_are_those_that_the_bridge_listens_on(settings: Settings) -> None:
    """Services, probes and policies name them, and a name means one number."""
    assert {"webhook": settings.port, "management": settings.management_port} == PORTS
    assert [port["targetPort"] for port in of_kind("Service")["ports"]] == ["webhook"]
    (scraped,) = of_kind("Service", f"{NAME}-pods")["ports"]
    assert (scraped["targetPort"], scraped["port"]) == ("management", settings.management_port)


def test_probes_ask_for_what_the_management_port_serves() -> None:
    """Alive never depends on Kafka, ready does not depend on Kafka while there is a spool."""

    async def nothing() -> Mapping[str, object]:
        return {}

    async def no_bytes() -> bytes:
        return b""

    app = management.application(metrics=no_bytes, ready=lambda: True, status=nothing)
    served = {resource.canonical for resource in app.router.resources()}
    probes = {kind: CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["path"] for probe in probes.values()} <= served
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"management"}


def test_pod_is_given_longer_to_stop_than_it_may_take(settings: Settings) -> None:
    """The delay, the answers in flight, a worker's own end, the publisher's end: no kill cuts a delivery off."""
    drain_s = settings.publish_deadline_ms / 1000 + _DRAIN_MARGIN_S
    longest_s = settings.shutdown_delay_ms / 1000 + (drain_s + _STOP_MARGIN_S) + drain_s
    assert POD["terminationGracePeriodSeconds"] >= 1.5 * longest_s


def test_delay_is_longer_than_the_readiness_probe_needs(settings: Settings) -> None:
    """Proxies that follow the pod's readiness have stopped sending before it stops taking."""
    probe = CONTAINER["readinessProbe"]
    noticed_s = probe["failureThreshold"] * (probe["periodSeconds"] + probe["timeoutSeconds"])
    assert settings.shutdown_delay_ms / 1000 > noticed_s


def test_spool_has_a_volume_of_its_own_with_room_for_it(settings: Settings) -> None:
    """Kept by whatever happens to the pod; a folder within it, which the bridge can make private."""
    stateful = of_kind("StatefulSet")
    (claim,) = stateful["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "spool"
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    storage = claim["spec"]["resources"]["requests"]["storage"]
    assert int(storage.removesuffix("Gi")) * GIB >= settings.spool_bytes_max + FREE_BYTES_MIN
    assert set(stateful["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    mount = MOUNTS["spool"]["mountPath"]
    assert mount == image_environment()["BRIDGE_SPOOL_DIR"]
    assert Path(settings.spool_dir).parent == Path(mount)


def test_autoscaler_takes_no_pod_away_and_may_change_their_number() -> None:
    """A pod that goes takes its spool along, so that is a person's decision; a rollout must not undo the autoscaler's."""
    scaler = of_kind("HorizontalPodAutoscaler")
    assert scaler["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": NAME}
    assert scaler["minReplicas"] > 1, "one pod cannot be restarted without a refused delivery"
    assert "replicas" not in of_kind("StatefulSet")
    assert of_kind("PodDisruptionBudget")["maxUnavailable"] == 1


def test_network_policy_opens_each_port_to_one_namespace() -> None:
    """The webhook to the proxy, the management port to Prometheus, and nothing to everybody."""
    policy = of_kind("NetworkPolicy")
    assert policy["podSelector"] == {"matchLabels": LABELS} == of_kind("PodDisruptionBudget")["selector"]
    assert policy["policyTypes"] == ["Ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["ingress"]] == [["webhook"], ["management"]]
    for rule in policy["ingress"]:
        (source,) = rule["from"]
        assert source.keys() == {"namespaceSelector"}
        assert source["namespaceSelector"]["matchLabels"]


def test_pod_runs_as_the_image_does_and_can_do_little() -> None:
    """What Pod Security calls restricted; the root file system is read-only, no token of the cluster, no service links."""
    user, group = map(int, only("USER").split(":"))
    security = POD["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (user, group, group)
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False
    assert {volume["name"] for volume in POD["volumes"]} | {"spool"} == MOUNTS.keys()
    (namespace,) = documents("example")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pod_runs_the_image_and_its_command() -> None:
    """By the name under which an overlay replaces it."""
    assert CONTAINER["image"] == OURS
    assert CONTAINER["args"] == json.loads(only("CMD"))
    (replaced,) = yaml.safe_load((KUBERNETES / "example/kustomization.yaml").read_text("utf-8"))["images"]
    assert replaced["name"] == OURS
