"""The files of deploy/: each is valid by its own schema, and they agree with each other and with serve.yaml."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import REPOSITORY

from bankintent import __version__
from bankintent.config import ServeConfig
from bankintent.configfile import load
from bankintent.serving.metrics import Metrics

DEPLOY = REPOSITORY / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS = sorted(
    set(KUBERNETES.glob("*.yaml"))
    - {KUBERNETES / name for name in ("kustomization.yaml", "adapter-rules.yaml", "scrape.yaml")}
)
CONTAINER_FILES = sorted((DEPLOY / "container").glob("*.Containerfile"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def manifest(name: str) -> Any:
    return read(KUBERNETES / f"{name}.yaml")


def container() -> Any:
    [only] = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    return only


def served_config(tmp_path: Path) -> ServeConfig:
    """The serve.yaml of the ConfigMap, as the server reads it."""
    file = tmp_path / "serve.yaml"
    file.write_text(manifest("configmap")["data"]["serve.yaml"])
    return load(ServeConfig, file)


# Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_a_manifest_fits_the_schema_of_kubernetes(path: Path, version: str) -> None:
    kubernetes_validate.validate(read(path), version, strict=True)


def test_a_manifest_with_a_wrong_key_would_be_found() -> None:
    wrong = manifest("deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_kustomize_takes_every_manifest_and_names_the_image() -> None:
    kustomization = manifest("kustomization")
    assert kustomization["resources"] == [path.name for path in MANIFESTS]
    [image] = kustomization["images"]
    assert image["name"] == container()["image"]
    assert image["newTag"] == __version__


def test_the_settings_are_those_of_a_server_and_fit_the_pod(tmp_path: Path) -> None:
    config = served_config(tmp_path)
    [port] = container()["ports"]
    assert (config.host, config.port) == ("0.0.0.0", port["containerPort"])
    assert config.threads == int(container()["resources"]["requests"]["cpu"])

    pod = manifest("deployment")["spec"]["template"]["spec"]
    pause = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = pod["terminationGracePeriodSeconds"]
    assert grace >= pause + config.limits.shutdown_s + 5

    mounted = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert config.model_dir is not None
    assert str(config.model_dir.parent) in mounted
    assert str(Path(container()["args"][1]).parent) in mounted
    assert {mount["name"] for mount in container()["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_what_belongs_together_has_the_same_name() -> None:
    deployment = manifest("deployment")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service")["spec"]["selector"] == labels
    assert manifest("disruption")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("scaling")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]

    sources = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert sources["settings"]["configMap"]["name"] == manifest("configmap")["metadata"]["name"]
    claim = sources["models"]["persistentVolumeClaim"]["claimName"]
    assert claim == manifest("models")["metadata"]["name"]


def test_a_pod_is_no_root_and_writes_only_to_tmp() -> None:
    template = manifest("deployment")["spec"]["template"]["spec"]
    assert template["securityContext"]["runAsNonRoot"] is True
    assert template["automountServiceAccountToken"] is False
    security = container()["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    writable = [each for each in container()["volumeMounts"] if not each.get("readOnly")]
    assert [each["mountPath"] for each in writable] == ["/tmp"]

    serving = (DEPLOY / "container" / "serve.Containerfile").read_text()
    user = template["securityContext"]["runAsUser"]
    assert f"\nUSER {user}:{user}\n" in serving


def test_probes_and_annotations_name_routes_that_need_no_other_settings() -> None:
    for probe, path in (("startup", "ready"), ("readiness", "ready"), ("liveness", "live")):
        assert container()[f"{probe}Probe"]["httpGet"]["path"] == f"/health/{path}"
    annotations = manifest("deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == "/metrics"
    assert int(annotations["prometheus.io/port"]) == container()["ports"][0]["containerPort"]


def test_the_number_of_pods_follows_a_metric_that_the_server_and_the_adapter_have() -> None:
    [metric] = manifest("scaling")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    [rule] = manifest("adapter-rules")["rules"]["custom"]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")
    registered = [family.name for family in Metrics().registry.collect()]
    assert name in registered
    # The labels that the rule asks for are those that the scraping job gives.
    [job] = manifest("scrape")
    given = {each.get("target_label") for each in job["relabel_configs"]}
    assert set(rule["resources"]["overrides"]) <= given
    assert "replicas" not in manifest("deployment")["spec"]


# Containers


@pytest.mark.parametrize("path", CONTAINER_FILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing_in_a_container_file(path: Path) -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", CONTAINER_FILES, ids=lambda path: path.stem)
def test_an_image_is_no_root_in_the_exec_form_with_pinned_packages(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^USER 10001:10001$", text, re.M)
    assert re.search(r"^ENTRYPOINT \[", text, re.M)
    assert "-c requirements.txt" in text
    bases = re.findall("^FROM (\\S+)", text, re.M)
    assert set(bases) == {"${BASE_IMAGE}"}
    # A name without a host.
    [default] = re.findall("^ARG BASE_IMAGE=(.*)$", text, re.M)
    assert re.fullmatch(r"[a-z]+:[\w.-]+", default)


def test_the_images_settings_are_those_of_a_server() -> None:
    config = load(ServeConfig, DEPLOY / "container" / "serve.yaml")
    text = (DEPLOY / "container" / "serve.Containerfile").read_text()
    assert f"COPY ${{MODEL}} {config.model_dir}\n" in text
    assert f"EXPOSE {config.port}\n" in text
    assert f":{config.port}/health/ready" in text


def test_what_a_container_file_copies_is_sent_to_its_build() -> None:
    sent = re.findall("^!(.*)$", (REPOSITORY / ".dockerignore").read_text(), re.M)
    for path in CONTAINER_FILES:
        for words in re.findall("^COPY (?!--from)(.*) \\S+$", path.read_text(), re.M):
            for name in words.split():
                if name != "${MODEL}":
                    assert (REPOSITORY / name).exists(), name
                    assert any(f"{name}/".startswith(f"{each}/") for each in sent), name


# Prometheus, Grafana, systemd


def names_of_metrics() -> set[str]:
    names = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        names |= {f"{family.name}{suffix}" for suffix in suffixes.get(family.type, ("",))}
    return names


def queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for group in read(DEPLOY / "prometheus" / "alerts.yaml")["groups"]:
        found += [rule["expr"] for rule in group["rules"]]
    return found


def test_dashboard_and_alerts_ask_for_metrics_that_the_server_has() -> None:
    asked = set(re.findall(r"bankintent_\w+", " ".join(queries())))
    assert asked <= names_of_metrics()


def test_every_metric_of_the_server_is_on_the_dashboard() -> None:
    dashboard = (DEPLOY / "grafana" / "dashboard.json").read_text()
    for family in Metrics().registry.collect():
        assert family.name in dashboard, family.name


def test_the_panels_of_the_dashboard_have_places_of_their_own() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def test_the_unit_waits_longer_than_a_server_needs_to_end() -> None:
    unit = (DEPLOY / "systemd" / "bankintent.service").read_text()
    [seconds] = re.findall("^TimeoutStopSec=(.*)$", unit, re.M)
    assert float(seconds) > ServeConfig().limits.shutdown_s
    assert "ExecStart=/opt/bankintent/bin/bankintent serve " in unit


@pytest.mark.scale
def test_systemd_takes_the_unit_and_finds_it_well_guarded(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")
    unit = tmp_path / "bankintent.service"
    text = (DEPLOY / "systemd" / unit.name).read_text()
    unit.write_text(text.replace("/opt/bankintent/bin/bankintent", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")

    # In tenths: at most 2.0 of 10.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]
    assert subprocess.run(command, capture_output=True).returncode == 0


# All of it


def test_no_file_names_a_registry_or_holds_a_secret() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"\b(docker\.io|ghcr\.io|quay\.io|gcr\.io|nvcr\.io)\b", text), path
            assert not re.search(r"(?i)(api_key|password|token)\s*[:=]\s*['\"]?\w{8,}", text), path
