"""A real Prometheus scrapes a real server: every query of the dashboard, the alerts and the adapter has data."""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from servers import ROOT, Server, running, serving
from test_deploy import DEPLOY, KUBERNETES, read

pytestmark = pytest.mark.scale

KEY = "key-of-a-test"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
APP = ("--factory", "serving_fixtures:waiting_app")
LIMITS = {"max_queue": 4, "max_texts": 4, "deadline_s": 20, "shutdown_s": 30}
MAY_BE_EMPTY = ("bankintent_closed_connections_total",)
"""Series that begin with the first event of their kind, of which a short load has none."""


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program}: apt-get install prometheus")
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key that has some of everything that is counted."""
    needs("prometheus")
    with serving(
        tmp_path_factory.mktemp("loaded"),
        *APP,
        config={"limits": LIMITS, "cache": 2},
        PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
        BANKINTENT_API_KEY=KEY,
    ) as server:
        yield server


def load(server: Server) -> None:
    """A little of everything: answers, cached ones, refused requests, an error, a full queue."""
    for text in ("yes", "yes", "no", "yes and no"):
        server.post("/predict/", {"text": text}, headers=AUTHORIZED)
    assert server.post("/predict/", {"text": ""}, headers=AUTHORIZED).status_code == 422
    assert server.post("/predict/", {"text": "poison"}, headers=AUTHORIZED).status_code == 500

    hold = server.log_file.parent / "hold"
    hold.touch()
    # None of them known from before.
    words = [f"{time.monotonic()} {number}" for number in range(4)]
    filling = threading.Thread(
        target=lambda: server.post("/predict/", {"text": words}, headers=AUTHORIZED)
    )
    filling.start()
    try:
        held = "bankintent_held_texts 4.0"
        server.until(lambda server: held in server.get("/metrics", headers=AUTHORIZED).text)
        response = server.post("/predict/", {"text": "one more"}, headers=AUTHORIZED)
        assert response.status_code == 429
    finally:
        hold.unlink(missing_ok=True)
        filling.join()


@pytest.fixture(scope="module")
def prometheus(loaded: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Prometheus of deploy/ with shorter intervals, over the server's port, and pods that are named."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = read(DEPLOY / "prometheus" / "prometheus.yaml")
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    [job] = config["scrape_configs"]
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{loaded.port}"]

    # What its discovery would say of a pod; Debian's Prometheus has none for Kubernetes.
    [pods] = read(KUBERNETES / "scrape.yaml")
    del pods["kubernetes_sd_configs"]
    template = read(KUBERNETES / "deployment.yaml")["spec"]["template"]["metadata"]
    meta = {"__meta_kubernetes_namespace": "ns", "__meta_kubernetes_pod_name": "pod-1"}
    for kind in ("labels", "annotations"):
        for name, value in template[kind].items():
            meta[f"__meta_kubernetes_pod_{kind[:-1]}_{re.sub('[./]', '_', name)}"] = value
    meta["__meta_kubernetes_pod_annotation_prometheus_io_port"] = str(loaded.port)
    other = {**meta, "__meta_kubernetes_pod_label_app_kubernetes_io_name": "another"}
    pods["static_configs"] = [
        {"targets": ["127.0.0.1:1"], "labels": meta},
        {"targets": ["127.0.0.1:2"], "labels": other},
    ]
    config["scrape_configs"].append(pods)

    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (folder / "bankintent-key").write_text(KEY)
    shutil.copy(DEPLOY / "prometheus" / "alerts.yaml", folder)
    checked = subprocess.run(
        [needs("promtool"), "check", "config", "prometheus.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr
    command = [needs("prometheus"), "--config.file=prometheus.yaml", "--storage.tsdb.path=data"]
    command.append("--web.listen-address=127.0.0.1:{port}")
    with running(command, folder, ready="/-/ready") as server:
        # A rate needs the values before and after.
        server.until(lambda server: bool(query(server, "bankintent_ready")))
        load(loaded)
        time.sleep(1.5)
        load(loaded)
        time.sleep(1.5)
        yield server


def query(server: Server, expression: str) -> list[Any]:
    response = httpx.get(f"{server.url}/api/v1/query", params={"query": expression}, timeout=30)
    body = response.json()
    assert body["status"] == "success", (expression, body)
    return body["data"]["result"]


def dashboard_queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_query_of_the_dashboard_has_data(prometheus: Server) -> None:
    empty = []
    for expression in dashboard_queries():
        filled = expression.replace("$job", "bankintent").replace("$__rate_interval", "1m")
        if not query(prometheus, filled):
            empty.append(expression)
    unexpected = [each for each in empty if not any(name in each for name in MAY_BE_EMPTY)]
    assert not unexpected


def test_what_every_alert_compares_is_there(prometheus: Server) -> None:
    rules = read(DEPLOY / "prometheus" / "alerts.yaml")["groups"][0]["rules"]
    for rule in rules:
        compared = re.fullmatch(r"(.*?)\s+(==|>)\s+[\d.]+\s*", rule["expr"], re.S)
        assert compared is not None, rule["alert"]
        # A waiting model answers every text, so that nothing is refused.
        value = compared[1].replace('{decision="abstain"}', '{decision="answer"}')
        assert query(prometheus, value), rule["alert"]
        query(prometheus, rule["expr"])


def test_prometheus_evaluates_the_alerts_and_sees_the_errors(prometheus: Server) -> None:
    # The rules are evaluated twice a second.
    time.sleep(1)
    groups = httpx.get(f"{prometheus.url}/api/v1/rules").json()["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    states = {name: rule["state"] for name, rule in rules.items()}
    assert states["BankintentErrors"] == "pending"
    assert states["BankintentRefusing"] == "pending"
    assert states["BankintentDown"] == "inactive"


def test_pods_are_found_by_their_annotations_and_scale_by_their_queue(prometheus: Server) -> None:
    prometheus.until(lambda server: bool(query(server, 'bankintent_ready{pod="pod-1"}')))
    assert not query(prometheus, 'up{instance="127.0.0.1:2"}')
    [rule] = read(KUBERNETES / "adapter-rules.yaml")["rules"]["custom"]
    assert query(prometheus, rule["seriesQuery"])
    asked = rule["metricsQuery"]
    for name, value in (
        ("<<.Series>>", rule["name"]["as"]),
        ("<<.LabelMatchers>>", 'namespace="ns",pod=~"pod-1"'),
        ("<<.GroupBy>>", "pod"),
    ):
        asked = asked.replace(name, value)
    [series] = query(prometheus, asked)
    assert series["metric"] == {"pod": "pod-1"}
