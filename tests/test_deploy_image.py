"""The image of deploy/container, built by a rootless builder and run as a read-only file system."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from servers import STOP_SECONDS, environment, running
from serving_fixtures import write_exported_bundle

pytestmark = [pytest.mark.scale, pytest.mark.timeout(1200)]

MOST_BYTES = 500_000_000
BASE = os.environ.get("BANKINTENT_BASE_ARCHIVE", "")

MOUNTS = """
set -e
mount --bind "$ROOT" "$ROOT"
mkdir -p "$ROOT/proc" "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
"""

IN_IMAGE = f"""{MOUNTS}
mount --bind "$BUNDLE" "$ROOT/models/intents"
mount -o remount,bind,ro "$ROOT/models/intents"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount -o remount,bind,ro "$ROOT"
exec env -i PATH=/opt/bankintent/bin:/usr/bin:/bin ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 \
  /usr/sbin/chroot --userspec=10001:10001 "$ROOT" bankintent serve --config /etc/bankintent/serve.yaml --port {{port}}
"""
"""What a container engine does: mounts of its own, nothing writable but /tmp, another user, process 1."""

TRAINED = f"""{MOUNTS}
mount --bind "$WORK" "$ROOT/work"
mount -t tmpfs tmpfs "$ROOT/tmp"
exec env -i PATH=/opt/bankintent/bin:/usr/bin:/bin HF_HOME=/tmp/hub MPLCONFIGDIR=/tmp/matplotlib \\
  /usr/sbin/chroot --userspec=10001:10001 "$ROOT" /bin/sh -ec "cd /work
bankintent etl --config data.yaml
bankintent train --config head-only.yaml --set data_dir=data --set output_dir=bundle"
"""
"""The same for a run of training in the folder that is mounted at /work."""


class Builder:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.options = ["--root", f"{folder}/store", "--runroot", f"{folder}/run"]
        self.options += ["--storage-driver", "vfs"]

    def __call__(self, verb: str, *words: object) -> str:
        command = ["buildah", *self.options, verb, *map(str, words)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """A builder that has built the image `served`."""
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("no buildah, or not root: apt-get install buildah")
    if not Path(BASE).is_file():
        pytest.skip(
            "BANKINTENT_BASE_ARCHIVE names no root file system: docs/results/scale/image.md"
        )

    folder = tmp_path_factory.mktemp("image")
    builder = Builder(folder)
    builder("from", "--name", "base", "scratch")
    builder("add", "--quiet", "base", BASE, "/")
    builder("commit", "--quiet", "--rm", "base", "a-base-of-a-test:1")
    build(builder, "serve", "served")
    builder("from", "--pull-never", "--name", "running", "served")
    yield builder
    # Hundreds of megabytes.
    shutil.rmtree(folder)


def build(builder: Builder, name: str, tag: str) -> None:
    """Build an image of deploy/container on the base of the test."""
    words = ["--isolation", "chroot", "--pull-never", "--format", "docker", "--tag", tag]
    words += ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
    words += ["--build-arg", "BASE_IMAGE=a-base-of-a-test:1"]
    builder("build", *words, "--file", f"deploy/container/{name}.Containerfile", ".")


@pytest.fixture(scope="module")
def root(builder: Builder) -> Path:
    """The file system of a container of the image."""
    return Path(builder("mount", "running"))


def size(root: Path) -> int:
    done = subprocess.run(["du", "-sxb", root], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_the_image_is_small_and_has_no_torch(root: Path) -> None:
    assert size(root) < MOST_BYTES
    [packages] = (root / "opt" / "bankintent" / "lib").glob("python3*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert not names & {"torch", "transformers", "mlflow", "gradio", "pandas", "pyarrow"}
    assert {"onnxruntime", "opentelemetry", "bankintent"} <= names


def test_the_image_says_how_it_runs(builder: Builder) -> None:
    config: dict[str, Any] = json.loads(builder("inspect", "--type", "image", "served"))
    docker = config["Docker"]["config"]
    assert docker["User"] == "10001:10001"
    assert docker["Entrypoint"] == ["bankintent", "serve"]
    assert docker["StopSignal"] == "SIGTERM"
    assert docker["Healthcheck"]["Test"][:2] == ["CMD", "python3"]


def test_a_server_answers_read_only_as_another_user_and_ends_on_sigterm(
    root: Path, tmp_path: Path
) -> None:
    model = write_exported_bundle(tmp_path / "model")
    env = environment(ROOT=str(root), BUNDLE=str(model))
    command = ["unshare", "--mount", "--pid", "--fork", "bash", "-c", IN_IMAGE]
    with running(command, tmp_path, ready="/health/ready", env=env) as server:
        answer = server.post("/predict/", {"text": "my card"})
        assert answer.status_code == 200, server.log
        assert server.get("/info").json()["runtime"].startswith("onnxruntime")

        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        process = int(children.read_text())
        status = Path(f"/proc/{process}/status").read_text()
        assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
        # Its number in its own namespace.
        assert status.split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        with pytest.raises(OSError, match="Read-only"):
            Path(f"/proc/{process}/root/opt/bankintent/new").touch()

        os.kill(process, signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS) == 0, server.log
        assert "Finished server process [1]" in server.log


def test_the_health_check_of_the_image_tells_a_server_that_is_away(
    builder: Builder, root: Path
) -> None:
    config = json.loads(builder("inspect", "--type", "image", "served"))
    words = config["Docker"]["config"]["Healthcheck"]["Test"][1:]
    env = {"PATH": "/opt/bankintent/bin:/usr/bin:/bin"}
    done = subprocess.run(["/usr/sbin/chroot", root, *words], env=env, capture_output=True)
    assert done.returncode != 0


def test_the_image_for_training_makes_a_bundle_as_another_user(
    builder: Builder, tmp_path: Path
) -> None:
    build(builder, "train", "trained")
    builder("from", "--pull-never", "--name", "training", "trained")
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(REPOSITORY / "configs" / "recommended" / "head-only.yaml", work)
    (work / "data.yaml").write_text("dataset_name: bundled\noutput_dir: data\n")
    shutil.chown(work, 10001, 10001)

    env = environment(ROOT=builder("mount", "training"), WORK=str(work))
    command = ["unshare", "--mount", "--pid", "--fork", "bash", "-c", TRAINED]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    manifest = json.loads((work / "bundle" / "manifest.json").read_text())
    assert "merged/model.safetensors" in manifest["files"]
    assert (work / "bundle" / "merged").stat().st_uid == 10001
