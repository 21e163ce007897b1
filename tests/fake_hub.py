"""A small stand-in for the Hugging Face Hub on loopback: models and datasets from folders, downloads only.

    python tests/fake_hub.py ROOT PORT

ROOT/<models|datasets>/<owner>/<name>/<revision>/<files>. A folder `refs%pr%1` is the pull request in which the Hub's bot
offers safetensors weights for a repository that has none.
"""

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from servers import running


@contextlib.contextmanager
def running_hub(root: Path, folder: Path) -> Iterator[str]:
    """Serve `root` by a process that works in `folder`, until the block ends; yields its address."""
    command = [sys.executable, __file__, str(root), "{port}"]
    with running(command, folder, ready="/docs") as server:
        yield server.url


def commit_of(folder: Path) -> str:
    """A folder named by 40 hex digits is that commit; any other name gets the hash of its name."""
    name = folder.resolve().name
    if len(name) == 40:
        return name
    return sha1(name)


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def not_found(code: str, commit: str | None = None) -> Response:
    """A refusal as the Hub's clients understand it."""
    headers = {"X-Error-Code": code}
    if commit is not None:
        headers["X-Repo-Commit"] = commit
    return Response(status_code=404, headers=headers)


@dataclass(frozen=True)
class Repositories:
    """The repositories below a folder."""

    root: Path

    def find(self, kind: str, repo: str, revision: str) -> Path | Response:
        """The folder of a revision, or the refusal that says what is missing."""
        base = self.root / kind / repo
        if not base.is_dir():
            return not_found("RepoNotFound")

        for candidate in base.iterdir():
            if candidate.name == revision.replace("/", "%") or commit_of(candidate) == revision:
                return candidate
        return not_found("RevisionNotFound")

    def send_file(
        self, kind: str, repo: str, revision: str, path: str, request: Request
    ) -> Response:
        folder = self.find(kind, repo, revision)
        if isinstance(folder, Response):
            return folder
        if not (folder / path).is_file():
            return not_found("EntryNotFound", commit_of(folder))

        content = (folder / path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit_of(folder), "ETag": f'"{digest}"'}
        if request.method == "HEAD":
            return Response(headers=headers | {"Content-Length": str(len(content))})
        return Response(content, media_type="application/octet-stream", headers=headers)

    def describe(self, kind: str, repo: str, revision: str) -> Any:
        """What the Hub's API says of a revision."""
        folder = self.find(kind, repo, revision)
        if isinstance(folder, Response):
            return folder

        paths = [path for path in folder.rglob("*") if path.is_file()]
        siblings = [{"rfilename": str(path.relative_to(folder))} for path in paths]
        sha = commit_of(folder)
        return {"id": repo, "sha": sha, "siblings": siblings, "private": False, "tags": []}

    def list_folder(self, kind: str, repo: str, revision: str, below: str) -> Any:
        folder = self.find(kind, repo, revision)
        if isinstance(folder, Response):
            return folder

        start = folder / below
        if not start.is_dir():
            return not_found("EntryNotFound", commit_of(folder))
        return [describe_entry(path, folder) for path in sorted(start.rglob("*"))]

    def list_commits(self, repo: str, revision: str) -> Any:
        """The commit of a revision, and that of the main branch below it."""
        newest = self.find("models", repo, revision)
        main = self.find("models", repo, "main")
        assert isinstance(newest, Path)
        assert isinstance(main, Path)

        fixed = {"title": "", "message": "", "authors": [], "date": "2024-01-01T00:00:00.000Z"}
        shas = dict.fromkeys([commit_of(newest), commit_of(main)])
        return [{"id": sha, **fixed} for sha in shas]

    def list_discussions(self, repo: str) -> Any:
        """The bot's pull request, where the repository has one."""
        pull_request = {
            "num": 1,
            "title": "Adding `safetensors` variant of this model",
            "status": "open",
            "isPullRequest": True,
            "author": {"name": "SFconvertbot"},
            "repo": {"name": repo, "type": "model"},
            "createdAt": "2024-01-01T00:00:00.000Z",
        }
        is_offered = (self.root / "models" / repo / "refs%pr%1").is_dir()
        listed = [pull_request] if is_offered else []
        return {"discussions": listed, "count": len(listed), "start": 0, "numClosedDiscussions": 0}


def describe_entry(path: Path, folder: Path) -> dict[str, Any]:
    is_folder = path.is_dir()
    return {
        "type": "directory" if is_folder else "file",
        "path": str(path.relative_to(folder)),
        "oid": sha1(str(path)),
        "size": 0 if is_folder else path.stat().st_size,
    }


def make_app(root: Path) -> FastAPI:
    """The routes that the Hub's client libraries ask for when they load."""
    app = FastAPI()
    repositories = Repositories(root)
    files_of = {"methods": ["GET", "HEAD"]}

    @app.api_route("/datasets/{owner}/{name}/resolve/{revision}/{path:path}", **files_of)
    def dataset_file(owner: str, name: str, revision: str, path: str, request: Request) -> Response:
        return repositories.send_file("datasets", f"{owner}/{name}", revision, path, request)

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", **files_of)
    def model_file(owner: str, name: str, revision: str, path: str, request: Request) -> Response:
        # refs%2Fpr%2F1 arrives decoded, as a folder of the path.
        if revision == "refs":
            pull_request, _, path = path.removeprefix("pr/").partition("/")
            revision = f"refs/pr/{pull_request}"
        return repositories.send_file("models", f"{owner}/{name}", revision, path, request)

    @app.get("/api/{kind}/{owner}/{name}/revision/{revision:path}")
    def revision_info(kind: str, owner: str, name: str, revision: str) -> Any:
        return repositories.describe(kind, f"{owner}/{name}", revision)

    @app.get("/api/{kind}/{owner}/{name}")
    def main_info(kind: str, owner: str, name: str) -> Any:
        return repositories.describe(kind, f"{owner}/{name}", "main")

    @app.get("/api/models/{owner}/{name}/commits/{revision:path}")
    def commits(owner: str, name: str, revision: str) -> Any:
        return repositories.list_commits(f"{owner}/{name}", revision)

    @app.get("/api/models/{owner}/{name}/discussions")
    def discussions(owner: str, name: str) -> Any:
        return repositories.list_discussions(f"{owner}/{name}")

    @app.get("/api/{kind}/{owner}/{name}/tree/{rest:path}")
    def tree(kind: str, owner: str, name: str, rest: str) -> Any:
        revision, _, below = rest.partition("/")
        return repositories.list_folder(kind, f"{owner}/{name}", revision, below)

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        make_app(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning"
    )
