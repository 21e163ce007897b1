"""A small stand-in for the Hugging Face Hub on loopback: models and datasets from folders, downloads only.

    python tests/hub.py ROOT PORT

ROOT/<models|datasets>/<owner>/<name>/<revision>/<files>. A folder `refs%pr%1` is the pull request in which the Hub's bot
offers safetensors weights for a repository that has none.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response


def commit_of(folder: Path) -> str:
    """A folder named by 40 hex digits is that commit; any other name gets the hash of its name."""
    name = folder.resolve().name
    return (
        name if len(name) == 40 else hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    )


def make_app(root: Path) -> FastAPI:
    """The routes that the Hub's client libraries ask for when they load."""
    app = FastAPI()

    def folder(kind: str, repo: str, revision: str) -> Path | Response:
        base = root / kind / repo
        if not base.is_dir():
            return Response(status_code=404, headers={"X-Error-Code": "RepoNotFound"})
        for candidate in base.iterdir():
            if candidate.name == revision.replace("/", "%") or commit_of(candidate) == revision:
                return candidate
        return Response(status_code=404, headers={"X-Error-Code": "RevisionNotFound"})

    def resolve(kind: str, repo: str, revision: str, path: str, request: Request) -> Response:
        found = folder(kind, repo, revision)
        if isinstance(found, Response):
            return found
        headers = {"X-Repo-Commit": commit_of(found)}
        if not (found / path).is_file():
            return Response(status_code=404, headers=headers | {"X-Error-Code": "EntryNotFound"})
        content = (found / path).read_bytes()
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        if request.method == "HEAD":
            return Response(headers=headers | {"Content-Length": str(len(content))})
        return Response(content, media_type="application/octet-stream", headers=headers)

    @app.api_route(
        "/datasets/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"]
    )
    def dataset_file(owner: str, name: str, revision: str, path: str, request: Request) -> Response:
        return resolve("datasets", f"{owner}/{name}", revision, path, request)

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def model_file(owner: str, name: str, revision: str, path: str, request: Request) -> Response:
        if revision == "refs":  # refs%2Fpr%2F1 arrives decoded
            pull_request, _, path = path.removeprefix("pr/").partition("/")
            revision = f"refs/pr/{pull_request}"
        return resolve("models", f"{owner}/{name}", revision, path, request)

    @app.get("/api/{kind}/{owner}/{name}/revision/{revision:path}")
    def revision_info(kind: str, owner: str, name: str, revision: str) -> Any:
        found = folder(kind, f"{owner}/{name}", revision)
        return found if isinstance(found, Response) else info(kind, owner, name, found)

    @app.get("/api/{kind}/{owner}/{name}")
    def main_info(kind: str, owner: str, name: str) -> Any:
        found = folder(kind, f"{owner}/{name}", "main")
        return found if isinstance(found, Response) else info(kind, owner, name, found)

    @app.get("/api/models/{owner}/{name}/commits/{revision:path}")
    def commits(owner: str, name: str, revision: str) -> Any:
        main, found = (folder("models", f"{owner}/{name}", r) for r in ("main", revision))
        assert isinstance(main, Path)
        assert isinstance(found, Path)
        shas = dict.fromkeys([commit_of(found), commit_of(main)])
        fixed = {"title": "", "message": "", "authors": [], "date": "2024-01-01T00:00:00.000Z"}
        return [{"id": sha, **fixed} for sha in shas]

    @app.get("/api/models/{owner}/{name}/discussions")
    def discussions(owner: str, name: str) -> Any:
        offered = (root / "models" / owner / name / "refs%pr%1").is_dir()
        bot = {
            "num": 1,
            "title": "Adding `safetensors` variant of this model",
            "status": "open",
            "isPullRequest": True,
            "author": {"name": "SFconvertbot"},
            "repo": {"name": f"{owner}/{name}", "type": "model"},
            "createdAt": "2024-01-01T00:00:00.000Z",
        }
        found = [bot] if offered else []
        return {"discussions": found, "count": len(found), "start": 0, "numClosedDiscussions": 0}

    def info(kind: str, owner: str, name: str, found: Path) -> dict[str, Any]:
        siblings = [
            {"rfilename": str(p.relative_to(found))} for p in found.rglob("*") if p.is_file()
        ]
        sha = commit_of(found)
        return {
            "id": f"{owner}/{name}",
            "sha": sha,
            "siblings": siblings,
            "private": False,
            "tags": [],
        }

    @app.get("/api/{kind}/{owner}/{name}/tree/{rest:path}")
    def tree(kind: str, owner: str, name: str, rest: str) -> Any:
        revision, _, below = rest.partition("/")
        found = folder(kind, f"{owner}/{name}", revision)
        if isinstance(found, Response):
            return found
        start = found / below
        if not start.is_dir():
            return Response(
                status_code=404,
                headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit_of(found)},
            )
        return [
            {
                "type": "directory" if path.is_dir() else "file",
                "path": str(path.relative_to(found)),
                "oid": hashlib.sha1(str(path).encode(), usedforsecurity=False).hexdigest(),
                "size": 0 if path.is_dir() else path.stat().st_size,
            }
            for path in sorted(start.rglob("*"))
        ]

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        make_app(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning"
    )
