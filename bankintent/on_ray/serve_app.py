"""The API as a Ray Serve application: replicas of the same app, each with the model.

    serve run bankintent.on_ray.serve_app:app config=configs/serve.yaml model_dir=artifacts/models/x

Bodies, limits, key and answers are those of `python -m backend`. Ray's proxy takes the place of the
server: the bounds of connections in serve.yaml do not apply to it.
"""

import os
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from bankintent import files, process
from bankintent.api_key import read_key
from bankintent.config import ModelSection, ServeConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError
from bankintent.on_ray import multiplexing
from bankintent.on_ray.cluster import demands
from bankintent.on_ray.ready import ReadyApp

NAME = "bankintent"
"""Name of the application and of its deployment."""

STARTS = 3
"""How often a replica is started before the application is given up: a wrong key or path stays."""

LOGGING = {"log_level": "WARNING", "enable_access_log": False}
"""Of proxies and replicas. The app has a log of its own; lines of Ray's hold query strings."""


@serve.ingress()
class Replica:
    """One replica: the app of `python -m backend` in an actor."""

    def __init__(self, settings: ServeConfig, key_hash: str | None) -> None:
        self.settings = settings
        # Nodes have environments of their own: without this one could answer without the key.
        if hash_of_key() != key_hash:
            raise ConfigError(
                "this node has another BANKINTENT_API_KEY than the command, or none",
                "Set it where `ray start` is called, on every node",
            )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app, made where the replica runs."""
        process.quiet_libraries()
        if self.settings.models:
            return self._several()

        from bankintent.serving.app import create_app

        return ReadyApp(create_app(self.settings))

    def _several(self) -> ASGIApp:
        """An app for several models, which Serve keeps and counts for this replica."""
        settings = self.settings

        @serve.multiplexed(max_num_models_per_replica=settings.ray.max_models)
        async def load(name: str) -> multiplexing.LoadedModel:
            of_model = multiplexing.settings_of(settings, name)
            return await multiplexing.LoadedModel.load(of_model)

        return multiplexing.Multiplexer(settings, load)


def hash_of_key() -> str | None:
    """The hash of the key that clients must send; None where there is no key.

    The key itself would be readable in the cluster's records.
    """
    key = read_key()
    return None if key is None else files.sha256_text(key)


def build(settings: ServeConfig) -> Application:
    """The application of a serve.yaml. Raises ConfigError for keys that Ray Serve does not have."""
    multiplexing.require_supported(settings)
    ray = settings.ray
    options: dict[str, Any] = {"num_replicas": ray.min_replicas}
    if ray.max_replicas > ray.min_replicas:
        scaling = {
            "min_replicas": ray.min_replicas,
            "max_replicas": ray.max_replicas,
            "target_ongoing_requests": ray.target_requests,
        }
        options = {"autoscaling_config": scaling}

    # A core for each thread that Ray gives, not for each that the machine has.
    threads = settings.threads or ray.cpus
    of_replica = _with_absolute_paths(settings).model_copy(update={"threads": threads})
    deploy = serve.deployment(
        name=NAME,
        ray_actor_options=demands(ray),
        max_ongoing_requests=ray.max_requests,
        graceful_shutdown_timeout_s=settings.limits.shutdown_s,
        logging_config=LOGGING,
        max_constructor_retry_count=STARTS,
        **options,
    )
    return deploy(Replica).bind(of_replica, hash_of_key())


def _with_absolute_paths(settings: ServeConfig) -> ServeConfig:
    """The same settings for another working folder, and `model_dir` as one of several models."""
    models = {}
    for name, model in settings.models.items():
        models[name] = model.model_copy(update={"model_dir": model.model_dir.absolute()})
    if settings.model_dir is None:
        return settings.model_copy(update={"models": models})

    path = settings.model_dir.absolute()
    changes: dict[str, Any] = {"model_dir": path, "models": models}
    if models:
        models.setdefault(path.name, ModelSection(model_dir=path))
        changes["default_model"] = settings.default_model or path.name
    return settings.model_copy(update=changes)


def app(args: dict[str, str]) -> Application:
    """The application for `serve run` and Serve's config files.

    `config` and `model_dir` in `args` are the options of `python -m backend`.
    """
    config = Path(args["config"]) if "config" in args else None
    model_dir = args.get("model_dir") or os.environ.get("MODEL_DIR") or None
    return build(load(ServeConfig, config, (), model_dir=model_dir))
