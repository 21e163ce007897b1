"""Another policy in the place of a bundle's policy; the former one is kept in the bundle."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bankintent import console, durable, files
from bankintent.bundle import inside, layout
from bankintent.bundle.layout import Checkpoint
from bankintent.bundle.record import Manifest
from bankintent.decision.policy import POLICY, VECTORS, VERSION_DIGITS, Policy
from bankintent.decision.wording import describe
from bankintent.errors import ModelError
from bankintent.inference import policies

FORMER = "policies"
"""Folder of a bundle with its former policies, each under its version."""


@dataclass(frozen=True)
class PolicyChange:
    """The policy that a bundle now has, and what stood there before."""

    bundle: Path
    policy: Policy
    former: str | None = None
    """Version of the policy that it replaces; None where there was none, or a damaged one."""
    notes: list[str] = field(default_factory=list)
    """What to know of it: why it does without features, what became of a damaged policy."""


@dataclass(frozen=True)
class HeldBundle:
    """A bundle that no other process writes meanwhile, its files as they were published."""

    checkpoint: Checkpoint
    work: Path
    """Its work folder."""
    former: Policy | None
    """The policy that is there; None where there is none, or a damaged one."""
    fault: str | None
    """What is wrong with a damaged one."""

    @property
    def root(self) -> Path:
        """Where its files are."""
        return self.checkpoint.root.resolve()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[HeldBundle]:
    """Hold a bundle for this process: what is replaced is what was read.

    Raises ModelError for what is no bundle, or where a file beside the policy was changed.
    """
    files.settle(folder)
    with files.exclusive(layout.open_checkpoint(folder).root.resolve()) as work:
        # Again: another process may have replaced it before the lock.
        checkpoint = layout.open_checkpoint(folder)
        if checkpoint.manifest is None:
            raise ModelError(
                f"{folder} is no bundle (no {layout.MANIFEST})",
                "Name a bundle such as artifacts/models/quickstart",
            )
        require_as_published(checkpoint.root, checkpoint.manifest)
        former, fault = read_former(checkpoint)
        yield HeldBundle(checkpoint, work, former, fault)


def require_as_published(root: Path, manifest: Manifest) -> None:
    """Raise ModelError where a file beside the policy is not as it was published.

    The bundle is sealed again, which would hide it.
    """
    for name in inside.list_entries(root):
        if name.split("/")[0] in (layout.MANIFEST, POLICY, VECTORS):
            continue

        inside.regular_file(root, name)
        layout.verify(root, manifest, name)
        if name == FORMER:
            raise ModelError(f"{root}: {FORMER} is no folder", "Copy or train the bundle again")


def read_former(checkpoint: Checkpoint) -> tuple[Policy | None, str | None]:
    """The policy that is there and, where it is damaged, a note: a new one is what mends it."""
    try:
        policy = policies.read_policy(checkpoint.root, checkpoint.manifest, checkpoint.labels)
    except ModelError as error:
        return None, f"the former policy was damaged and is not kept ({error})"
    return policy, None


def restore(folder: Path, version: str) -> PolicyChange:
    """Put a former policy of a bundle back in its place; the one that is there becomes former.

    Raises ModelError where there is no such policy, or where it was changed; the bundle is then as
    it was.
    """
    with held(folder) as bundle:
        manifest = bundle.checkpoint.manifest
        assert manifest is not None
        # Of the names that are recorded: what a user types becomes no path.
        recorded = manifest.folder(FORMER)
        versions = [Path(name).stem for name in recorded if name.endswith(".json")]
        if version not in versions:
            raise ModelError(
                f"{folder} has no former policy {version}",
                f"Former ones: {', '.join(sorted(versions)) or 'none'}",
            )
        return replace(bundle, None, lambda staging: _take_former(staging, version))


def _take_former(staging: Path, version: str) -> None:
    former = staging / FORMER
    (former / f"{version}.json").rename(staging / POLICY)
    vectors = former / f"{version}.safetensors"
    if vectors.is_file():
        vectors.rename(staging / VECTORS)


def replace(bundle: HeldBundle, new: Policy | None, put: Callable[[Path], None]) -> PolicyChange:
    """Put a policy into a bundle and keep the one that is there.

    `put` writes it into the staging folder, which has none by then; `new` is that policy, where it
    is known already. The bundle is made anew in its work folder, of the same files, and renamed
    into its place: a reader sees the old one or the new one.
    """
    root = bundle.root
    notes = [] if bundle.fault is None else [bundle.fault]
    # Written again, the same policy would stand among the former ones too.
    if new is not None and bundle.former is not None and bundle.former.version == new.version:
        notes.append("the bundle had this policy already; nothing is written")
        return PolicyChange(root, new, None, notes)

    staging = files.make_empty(bundle.work)
    try:
        files.link_tree(root, staging)
        former = None if bundle.former is None else _keep_former(staging)
        # The links are names of the old files, which must stay as they are.
        for name in (POLICY, VECTORS, layout.MANIFEST):
            durable.remove(staging / name)

        put(staging)
        facts = inside.read_object(root, layout.MANIFEST)
        del facts["files"]
        layout.seal(staging, facts)
        # Nothing takes its place that could not be read there.
        sealed = layout.read_manifest(staging)
        policy = policies.read_policy(staging, sealed, bundle.checkpoint.labels)
        assert policy is not None
        files.publish(staging, root)
    finally:
        files.discard(bundle.work)
    return PolicyChange(root, policy, former, notes)


def _keep_former(staging: Path) -> str:
    """Move the policy that is there to the former ones; returns its version."""
    version = files.sha256(staging / POLICY)[:VERSION_DIGITS]
    former = staging / FORMER
    former.mkdir(exist_ok=True)
    (staging / POLICY).rename(former / f"{version}.json")
    if (staging / VECTORS).is_file():
        (staging / VECTORS).rename(former / f"{version}.safetensors")
    return version


def show(change: PolicyChange) -> None:
    """Print what the policy promises, and how to take the former one again."""
    bundle = console.show_path(change.bundle)
    console.say(f"{bundle} has the policy {change.policy.version}")
    for note in change.notes:
        console.say(f"note: {note}")
    for line in describe(change.policy.record):
        console.say(f"  {line}")
    console.say(
        "A server that runs goes on with the policy it has read: restart it to take this one"
    )
    if change.former is not None:
        console.say(f"The former one is kept: --restore {change.former} takes it again")
