"""Built engines on disk: found by everything that decides them, and refused unless they are as they were stored.

Deserializing a TensorRT plan runs what is in it. A stored plan is therefore used only with a manifest that names its
SHA-256 and carries an HMAC made with a key of this user's own.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.engines import files, identity
from saccade.engines.identity import Platform
from saccade.engines.options import BuildOptions
from saccade.errors import EngineError
from saccade.kernels.setup import cache_folder

if TYPE_CHECKING:
    from saccade.engines.builder import BuiltPlan

SCHEMA = 1

_KEY = re.compile(r"[0-9a-f]{32}")


def quiet(_text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan whose manifest is authentic and names its hash."""

    key: str
    data: bytes
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored engine as it lies there, good or not."""

    key: str
    manifest: dict[str, Any]
    """What the manifest says; empty where it cannot be read."""
    problem: str | None
    """Why it is refused; ``None`` = it is not."""


class EngineStore:
    """A folder of plans and their manifests that belongs to one user.

    Args:
        folder: Where they lie; ``None`` = ``engines`` in the user's cache.
        secret: File with the key of the HMAC, made on first use; ``None`` = in the user's cache, beside that folder.

    Raises:
        EngineError: The folder belongs to somebody else, or cannot be made.
    """

    def __init__(self, folder: Path | None = None, *, secret: Path | None = None) -> None:
        self.folder = files.private_folder(cache_folder("engines") if folder is None else Path(folder))
        self._secret = cache_folder("keys") / "engines.key" if secret is None else Path(secret)

    def key(self, onnx: Path, options: BuildOptions, platform: Platform) -> str:
        """Returns the content key of the engine that a build would give.

        Raises:
            ModelError: The ONNX file, its external data or the calibration set cannot be read.
        """
        return identity.key_of(identity.parts(onnx, options, platform))

    def get(self, key: str) -> StoredPlan | None:
        """Returns the plan stored under ``key``; ``None`` = there is none, or only its manifest is left.

        Raises:
            EngineError: There is one, and it is not as it was stored.
        """
        manifest = self._manifest(key)
        if manifest is None:
            return None
        data = self._read(self.folder / manifest["plan"]["file"])
        if data is None:
            # Who stores another plan under the key replaces the manifest first and removes the old plan after.
            manifest = self._manifest(key) or manifest
            data = self._read(self.folder / manifest["plan"]["file"])
        if data is None and not any(file.suffix == ".plan" for file in self._files_of(key)):
            return None
        problem = _plan_problem(manifest, data)
        if data is None or problem is not None:
            raise self._refused(key, problem or "its plan is missing", None if data is None else files.digest(data))
        return StoredPlan(key, data, manifest)

    def put(self, key: str, plan: bytes, manifest: Mapping[str, Any]) -> StoredPlan:
        """Stores a plan and its signed manifest; whoever reads meanwhile finds the former or the new, complete.

        Args:
            key: As :meth:`key` gives it.
            plan: The serialized engine.
            manifest: ``name``, ``parts``, ``facts``, ``qualification``; the rest is filled in here.

        Raises:
            EngineError: It cannot be written.
        """
        sha256 = files.digest(plan)
        file = f"{key}-{sha256[:16]}.plan"
        complete = {
            "schema": SCHEMA,
            "key": key,
            "name": "",
            "parts": {},
            "facts": {},
            "qualification": None,
            "foreign": False,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            **manifest,
            "plan": {"file": file, "sha256": sha256, "bytes": len(plan)},
        }
        if self._read(self.folder / file) != plan:
            files.write_whole(self.folder / file, plan)
        self._write_manifest(key, complete)
        for other in self._files_of(key):
            if other.name not in (file, f"{key}.json"):
                other.unlink(missing_ok=True)
        return StoredPlan(key, plan, self._signed(complete))

    def list(self) -> Sequence[Entry]:
        """Returns every stored engine with the state of its manifest; :meth:`verify` also reads the plans."""
        return [self._entry(key, plan=False) for key in self._keys()]

    def verify(self, key: str | None = None) -> Sequence[Entry]:
        """Returns one or every stored engine, with its plan's hash checked.

        Raises:
            EngineError: No engine has that key.
        """
        return [self._entry(found, plan=True) for found in ([self.resolve(key)] if key else self._keys())]

    def remove(self, key: str) -> str:
        """Removes the engine with that key, or the only one whose key begins with it, and returns its key.

        Raises:
            EngineError: No engine has that key, or several.
        """
        found = self.resolve(key)
        with files.locked(self.folder / f"{found}.lock"):
            (self.folder / f"{found}.json").unlink(missing_ok=True)
            for file in self._files_of(found):
                file.unlink(missing_ok=True)
        return found

    def resolve(self, key: str) -> str:
        """Returns the whole key of which ``key`` is the beginning.

        Raises:
            EngineError: No engine has that key, or several.
        """
        keys = self._keys()
        found = [known for known in keys if key and known.startswith(key.lower())]
        if len(found) == 1:
            return found[0]
        if found:
            raise EngineError(f"engine {key!r}: {len(found)} keys begin with it: {', '.join(k[:12] for k in found)}")
        raise EngineError(
            f"engine {key!r}: {self.folder} has none with that key. "
            f"{'It has ' + ', '.join(k[:12] for k in keys) if keys else 'It is empty'}; see: saccade engine list"
        )

    def plan_for(
        self,
        onnx: Path,
        options: BuildOptions,
        *,
        build: Callable[..., BuiltPlan],
        platform: Platform | None = None,
        qualify: Callable[[StoredPlan], dict[str, Any]] | None = None,
        say: Callable[[str], None] = quiet,
    ) -> StoredPlan:
        """Returns the stored engine, or builds, stores and qualifies it, once among all processes that ask for it.

        Args:
            onnx: The network.
            options: How to build it.
            build: Called as ``build(onnx, options, timing_cache=..., say=...)``, such as
                :func:`saccade.engines.builder.plan_from_onnx`.
            platform: What it is built for; ``None`` = the first GPU here.
            qualify: Gives the figures that go into the manifest; called until it has given some.
            say: Told in one line why a build is needed, and who is waited for.

        Raises:
            EngineError: The stored plan is refused, or the build fails.
        """
        platform = Platform.here() if platform is None else platform
        parts = identity.parts(onnx, options, platform)
        key = identity.key_of(parts)
        stored = self.get(key)
        if stored is not None and _is_complete(stored, qualify):
            return stored
        waiting = f"{onnx.name}: another process builds this engine; waiting for it"
        with files.locked(self.folder / f"{key}.lock", say=say, waiting=waiting):
            stored = self.get(key)
            if stored is None:
                say(self._reason(onnx.name, key, parts))
                built = build(onnx, options, timing_cache=self.timing_cache(platform), say=say)
                manifest = {"name": onnx.name, "parts": parts, "facts": dict(built.facts)}
                # Before it is qualified, so that an interrupted qualification does not cost the build.
                stored = self.put(key, bytes(built.data), manifest)
            if qualify is not None and not _is_complete(stored, qualify):
                figures = qualify(stored)
                stored = self.put(key, stored.data, {**stored.manifest, "qualification": figures})
        return stored

    def timing_cache(self, platform: Platform) -> Path:
        """Returns the file of measured tactics that all builds for ``platform`` share."""
        name = hashlib.sha256(json.dumps(platform.as_dict(), sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"timing-{name}.cache"

    def trust(self, path: Path, sha256: str) -> StoredPlan:
        """Takes in a plan that somebody else built, or one of the store whose manifest is not authentic.

        Args:
            path: The plan.
            sha256: Its SHA-256 as its builder told it: what is trusted is these bytes.

        Raises:
            EngineError: The file has other bytes, or cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: cannot read this plan: {error.strerror}") from error
        found = files.digest(data)
        if not hmac.compare_digest(found, sha256.strip().lower()):
            raise EngineError(f"{path}: its SHA-256 is {found}, not {sha256}: these are not the bytes you trust")
        own = _KEY.match(path.name) if path.resolve().parent == self.folder.resolve() else None
        key = own.group() if own else identity.key_of({"foreign": found})
        with files.locked(self.folder / f"{key}.lock"):
            return self.put(key, data, {"name": path.name, "foreign": True})

    def trusted(self, path: Path) -> StoredPlan:
        """Returns the plan in ``path`` where :meth:`trust` has taken it in, or a build here has made it.

        Raises:
            EngineError: Nobody said that these bytes are trusted, or the file cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: cannot read this plan: {error.strerror}") from error
        sha256 = files.digest(data)
        for key in self._keys():
            entry = self._entry(key, plan=False)
            if entry.problem is None and entry.manifest["plan"]["sha256"] == sha256:
                return StoredPlan(key, data, entry.manifest)
        raise EngineError(
            f"{path}: this plan was not built here, and a plan runs its code when it is opened. Its SHA-256 is "
            f"{sha256}. If whoever built it tells you the same:  saccade engine verify {path} --trust {sha256}"
        )

    def plan_file(self, key: str) -> Path:
        """Returns the file of the plan stored under ``key``, whether or not its manifest is authentic.

        Raises:
            EngineError: No engine has that key, or it has no plan.
        """
        found = self.resolve(key)
        plans = sorted(file for file in self._files_of(found) if file.suffix == ".plan")
        if not plans:
            raise EngineError(f"engine {found[:12]} has no plan; remove it:  saccade engine remove {found[:12]}")
        return plans[-1]

    def _reason(self, name: str, key: str, parts: Mapping[str, Any]) -> str:
        """One line: what differs from the most similar engine of a network of that name."""
        if self._manifest(key) is not None:
            return f"{name}: building its engine anew: of the former only the manifest is left"
        former = [entry.manifest["parts"] for entry in self.list() if entry.problem is None]
        same = [identity.differences(other, parts) for other in former if other.get("name") == name]
        if not same:
            return f"{name}: building its engine, there is none of it yet"
        closest = min(same, key=len)
        return f"{name}: building its engine anew: {', '.join(closest)}"

    def _entry(self, key: str, *, plan: bool) -> Entry:
        try:
            manifest = self._manifest(key)
            if manifest is None:
                return Entry(key, {}, "it has no manifest")
            file = self.folder / manifest["plan"]["file"]
            if not plan:
                return Entry(key, manifest, None if file.is_file() else "its plan is missing")
            return Entry(key, manifest, _plan_problem(manifest, self._read(file)))
        except EngineError as error:
            return Entry(key, {}, str(error))

    def _manifest(self, key: str) -> dict[str, Any] | None:
        """The authentic manifest of ``key``; ``None`` = there is none of any kind."""
        if not _KEY.fullmatch(key):
            raise EngineError(f"engine {key!r}: expected 32 hexadecimal digits; see: saccade engine list")
        text = self._read(self.folder / f"{key}.json")
        if text is None:
            return None
        try:
            manifest = json.loads(text)
            claimed = manifest["hmac"]
            authentic = hmac.compare_digest(claimed, self._hmac(manifest))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._refused(key, "its manifest is damaged") from None
        if not authentic:
            raise self._refused(
                key, "its manifest was not written by this user's Saccade, or changed since, or the key was replaced"
            )
        if manifest.get("schema") != SCHEMA or manifest.get("key") != key:
            raise self._refused(key, "its manifest is of another engine or of another version of Saccade")
        return manifest

    def _write_manifest(self, key: str, manifest: dict[str, Any]) -> None:
        text = json.dumps(self._signed(manifest), indent=1, sort_keys=True, allow_nan=False)
        files.write_whole(self.folder / f"{key}.json", text.encode())

    def _signed(self, manifest: dict[str, Any]) -> dict[str, Any]:
        # As it will be read back: tuples are lists there.
        plain = json.loads(json.dumps(manifest, allow_nan=False))
        return {**plain, "hmac": self._hmac(plain)}

    def _hmac(self, manifest: Mapping[str, Any]) -> str:
        signed = {name: value for name, value in manifest.items() if name != "hmac"}
        text = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
        return hmac.new(files.secret(self._secret), text, hashlib.sha256).hexdigest()

    def _refused(self, key: str, why: str, sha256: str | None = None) -> EngineError:
        trust = ""
        if sha256 is None:
            plans = [file for file in self._files_of(key) if file.suffix == ".plan"]
            if len(plans) == 1:
                sha256 = files.digest(plans[0].read_bytes())
        if sha256 is not None:
            trust = f", or, if you know that these bytes are good:  saccade engine verify {key[:12]} --trust {sha256}"
        return EngineError(
            f"engine {key[:12]} in {self.folder} is refused: {why}. A plan runs its code when it is opened. Remove it "
            f"and it is built again:  saccade engine remove {key[:12]}{trust}"
        )

    def _keys(self) -> Sequence[str]:
        found = (_KEY.match(file.name) for file in self.folder.iterdir() if file.suffix in (".json", ".plan"))
        return sorted({match.group() for match in found if match})

    def _files_of(self, key: str) -> Iterator[Path]:
        """The manifest, the plans and what a killed writer has left of one engine; its lock is not among them."""
        for file in self.folder.iterdir():
            if file.name.lstrip(".").startswith(key) and file.suffix in (".json", ".plan", ".tmp"):
                yield file

    def _read(self, file: Path) -> bytes | None:
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EngineError(f"{file}: cannot be read: {error.strerror}") from error


def _is_complete(stored: StoredPlan, qualify: Callable[..., Any] | None) -> bool:
    return qualify is None or stored.manifest["qualification"] is not None


def _plan_problem(manifest: Mapping[str, Any], data: bytes | None) -> str | None:
    """Why a plan does not fit its authentic manifest; ``None`` = it does."""
    if data is None:
        return "its plan is missing"
    told = manifest["plan"]
    if len(data) < told["bytes"]:
        return f"its plan is cut off: {len(data)} of {told['bytes']} bytes"
    if files.digest(data) != told["sha256"]:
        return "its plan was changed after it was stored"
    return None
