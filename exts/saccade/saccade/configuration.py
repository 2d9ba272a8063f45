"""Loads a run configuration: YAML files, ``base``, options and ``--set``, with the origin of every field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from saccade import paths
from saccade.config import RunConfig
from saccade.errors import ConfigurationError
from saccade.fields import annotation_at, child, mapped_type, nearest, real_path, sections_of, type_text
from saccade.yamlfile import FieldPath, YamlDocument, dump_value, read_file, read_text

ERRORS_SHOWN = 20

OPTIONS: dict[str, FieldPath] = {
    "frames": ("run", "frames"),
    "name": ("run", "name"),
    "seed": ("run", "seed"),
    "simulator": ("simulator", "backend"),
    "device": ("simulator", "device"),
    "engine": ("engine", "backend"),
}
"""The options of ``load_configuration`` and ``saccade validate`` that set one field, and that field."""


@dataclass(frozen=True)
class Origin:
    """Where a value comes from."""

    text: str
    """As the record says it: ``"file config/warehouse.yaml"``, ``"--set"``, ``"--frames"``."""
    file: Path | None = None
    line: int = 0

    def __str__(self) -> str:
        return f"{paths.display(self.file)}:{self.line}" if self.file is not None else self.text


@dataclass(frozen=True)
class LoadedConfiguration:
    """A run configuration that passed every check, with where its values come from."""

    config: RunConfig
    sources: dict[str, str]
    """By dotted field: ``"default"``, ``"file <path>"``, ``"--set"``, ``"--frames"``, ..."""
    path: Path
    """The configuration file."""
    origins: Mapping[FieldPath, Origin] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The configuration's own name: that of its file."""
        return self.path.stem

    def scene_path(self) -> Path | str:
        """Returns the scene file, or the URL as it stands where Isaac Sim may open it.

        Raises:
            SceneError: There is no such file.
        """
        scene = self.config.scene
        if paths.is_url(scene) and self.config.simulator.backend in ("auto", "isaac"):
            return scene
        return self._resolve(scene, "scene", ("scene",))

    def model_path(self, network: str) -> Path:
        """Returns the ONNX file of a configured network.

        Raises:
            ModelError: There is no such file.
        """
        return self._resolve(self.config.networks[network].model, "model", ("networks", network, "model"))

    def recording_path(self) -> Path | None:
        """Returns the run folder or bag to replay, ``None`` where the configuration names none.

        Raises:
            RecordError: There is no such thing.
        """
        recording = self.config.simulator.recording
        return None if recording is None else self._resolve(recording, "recording", ("simulator", "recording"))

    def check_files(self) -> None:
        """Makes sure that every file that the run needs exists, before anything is loaded.

        Raises:
            SaccadeError: One is missing; the text says which and where it was looked for.
        """
        if self.config.simulator.backend == "replay":
            if self.recording_path() is None:
                raise ConfigurationError(
                    "simulator.recording: a replay needs the folder of a run that was recorded with "
                    "record.sensors: true, or a ROS 2 bag; give it with --set simulator.recording=PATH"
                )
        else:
            self.scene_path()
        for network in self.config.networks:
            self.model_path(network)

    def _resolve(self, text: str, kind: paths.Kind, where: FieldPath) -> Path:
        origin = self.origins.get(where)
        beside = [self.path.parent]
        if origin is not None and origin.file is not None:
            beside.insert(0, origin.file.parent)  # a base file's paths are relative to the base file
        elif origin is not None:
            beside.insert(0, Path.cwd())  # typed at the prompt
        prefix = f"{origin}: " if origin is not None else ""
        return paths.resolve(text, kind, beside=beside, field=f"{prefix}{dotted(where)}")


def load_configuration(
    path_or_name: str | Path,
    *,
    overrides: Sequence[str] = (),
    frames: int | None = None,
    name: str | None = None,
    seed: int | None = None,
    simulator: str | None = None,
    device: str | None = None,
    engine: str | None = None,
) -> LoadedConfiguration:
    """Loads a configuration file and applies what the command line says.

    Args:
        path_or_name: A YAML file, or the name of a shipped configuration such as ``"warehouse"``.
        overrides: ``"a.b.c=value"`` with a YAML value, applied last and in order.
        frames: Sets ``run.frames``.
        name: Sets ``run.name``.
        seed: Sets ``run.seed``.
        simulator: Sets ``simulator.backend``.
        device: Sets ``simulator.device``.
        engine: Sets ``engine.backend``.

    Raises:
        ConfigurationError: With one line per problem: file and line or option, field, what was expected, what to do.
    """
    path = find_configuration(path_or_name)
    data, origins = _read_with_base(path, ())
    options = {"frames": frames, "name": name, "seed": seed, "simulator": simulator, "device": device, "engine": engine}
    for option, value in options.items():
        if value is not None:
            _put(data, origins, [str(key) for key in OPTIONS[option]], value, Origin(f"--{option}"))
    for override in overrides:
        _apply_override(data, origins, override)
    config = validated(data, origins, Origin(f"file {paths.display(path)}", path, 1))
    return LoadedConfiguration(config, _sources(config, data, origins), path, origins)


def configuration_from(
    document: dict[str, Any],
    *,
    path: Path,
    overrides: Sequence[str] = (),
    device: str | None = None,
    engine: str | None = None,
) -> LoadedConfiguration:
    """Returns the configuration that a program made from a file which is not itself one, such as a network.

    Args:
        document: Its fields; changed in place.
        path: The file.
        overrides: As of :func:`load_configuration`.
        device: Sets ``simulator.device``.
        engine: Sets ``engine.backend``.

    Raises:
        ConfigurationError: With one line per problem.
    """
    origins: dict[FieldPath, Origin] = {}
    root = Origin(f"file {paths.display(path)}", path, 1)
    for option, value in (("device", device), ("engine", engine)):
        if value is not None:
            _put(document, origins, [str(key) for key in OPTIONS[option]], value, Origin(f"--{option}"))
    for override in overrides:
        _apply_override(document, origins, override)
    config = validated(document, origins, root)
    return LoadedConfiguration(config, _sources(config, document, origins), path, origins)


def find_configuration(path_or_name: str | Path) -> Path:
    """Returns the file that a path or the name of a shipped configuration means.

    Raises:
        ConfigurationError: There is none.
    """
    text = str(path_or_name)
    if not text.endswith((".yaml", ".yml")) and not (text and Path(text).suffix and Path(text).exists()):
        text = f"{text}.yaml" if text else text
    return paths.resolve(text, "configuration")


def dotted(path: FieldPath) -> str:
    """Returns a field path as one name: ``sensors.head_camera.rate``."""
    return ".".join(str(key) for key in path)


def _read_with_base(path: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], dict[FieldPath, Origin]]:
    """Reads a file and, below it, the file that its ``base`` names."""
    if path in chain:
        names = " -> ".join(paths.display(file) for file in (*chain, path))
        raise ConfigurationError(f"base: the files name each other in a circle: {names}")
    document = read_file(path)
    data, origins = _top_level(document, path)
    if "base" not in data:
        return data, origins
    base = data.pop("base")
    line = origins.pop(("base",))
    if not isinstance(base, str) or not base:
        raise ConfigurationError(f"{line}: base: expected the path of another configuration file, got {base!r}")
    below = paths.resolve(base, "configuration", beside=[path.parent], field=f"{line}: base")
    merged, merged_origins = _read_with_base(below, (*chain, path))
    _merge(merged, merged_origins, data, origins, ())
    return merged, merged_origins


def _top_level(document: YamlDocument, path: Path) -> tuple[dict[str, Any], dict[FieldPath, Origin]]:
    if document.value is None:
        raise ConfigurationError(
            f"{paths.display(path)}: the file is empty; a run needs at least 'scene' and 'sensors' "
            "(see: saccade config show)"
        )
    if not isinstance(document.value, dict):
        raise ConfigurationError(
            f"{paths.display(path)}:1: expected 'field: value' lines, got {_short(document.value)}"
        )
    text = f"file {paths.display(path)}"
    return document.value, {key: Origin(text, path, line) for key, line in document.lines.items()}


def _merge(
    below: dict[str, Any],
    below_origins: dict[FieldPath, Origin],
    above: dict[str, Any],
    above_origins: Mapping[FieldPath, Origin],
    at: FieldPath,
) -> None:
    """Lays ``above`` over ``below``: sections are merged field by field, everything else is replaced."""
    for key, value in above.items():
        where = (*at, key)
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], below_origins, value, above_origins, where)
            below_origins[where] = above_origins[where]
            continue
        below[key] = value
        _forget(below_origins, where)
        below_origins.update({path: line for path, line in above_origins.items() if path[: len(where)] == where})


def _forget(origins: dict[FieldPath, Origin], where: FieldPath) -> None:
    for path in [path for path in origins if path[: len(where)] == where]:
        del origins[path]


def _apply_override(data: dict[str, Any], origins: dict[FieldPath, Origin], override: str) -> None:
    name, separator, text = override.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not separator or not all(keys):
        raise ConfigurationError(f"--set {override!r}: expected field=value, such as --set run.frames=100")
    document = read_text(text, f"--set {name.strip()}")
    _put(data, origins, keys, document.value, Origin("--set"))


def _put(data: dict[str, Any], origins: dict[FieldPath, Origin], keys: list[str], value: Any, origin: Origin) -> None:
    """Sets one field; sections on the way are made, list items are addressed by their number."""
    where: FieldPath = ()
    current: Any = data
    while True:
        key: Any = (
            _list_index(keys, current, where, origin) if isinstance(current, list) else _longest_key(current, keys)
        )
        where = (*where, key)
        if not keys:
            break
        below = child(current, key)
        if not isinstance(below, dict | list):
            below = _room_for(keys[0], below, where, data, origin)
            current[key] = below
            origins.setdefault(where, origin)
        current = below
    current[key] = value
    _forget(origins, where)
    origins[where] = origin


def _longest_key(section: Mapping[str, Any], keys: list[str]) -> str:
    """Takes the next field name off ``keys``; names that hold dots themselves are recognised where they exist."""
    for count in range(len(keys), 1, -1):
        name = ".".join(keys[:count])
        if name in section:
            del keys[:count]
            return name
    return keys.pop(0)


def _list_index(keys: list[str], values: list[Any], where: FieldPath, origin: Origin) -> int:
    key = keys.pop(0)
    if not re.fullmatch(r"[0-9]{1,6}", key) or int(key) >= len(values):
        raise ConfigurationError(
            f"{origin}: {dotted(where)}.{key}: {dotted(where)} is a list of {len(values)}; "
            f"expected an index from 0 to {len(values) - 1}"
        )
    return int(key)


def _room_for(key: str, below: Any, where: FieldPath, data: Mapping[str, Any], origin: Origin) -> Any:
    """Returns what a deeper field goes into where there is nothing yet: a copy of a default list, else a section."""
    annotation, info = annotation_at(where, data)
    if below is not None or (
        annotation is not None and not sections_of(annotation) and mapped_type(annotation) is None and not key.isdigit()
    ):
        raise ConfigurationError(
            f"{origin}: {dotted(where)}.{key}: {dotted(where)} is a plain value "
            f"({_expected(annotation, info)}) and has no field {key!r}"
        )
    default = info.get_default(call_default_factory=True) if info is not None else None
    return list(default) if key.isdigit() and isinstance(default, list | tuple) else {}


def validated(data: Mapping[str, Any], origins: Mapping[FieldPath, Origin], root: Origin) -> RunConfig:
    """Checks raw values against the typed configuration.

    Raises:
        ConfigurationError: With one line per problem.
    """
    # JSON in between: strict types (no 'true' for a number), yet lists are accepted where a tuple is meant
    text = json.dumps(data)
    try:
        return RunConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = list(dict.fromkeys(_problems(error, data, origins, root)))
    if len(problems) > ERRORS_SHOWN:
        problems[ERRORS_SHOWN:] = [f"... and {len(problems) - ERRORS_SHOWN} more"]
    raise ConfigurationError("\n".join(problems)) from None


def _problems(
    error: ValidationError, data: Mapping[str, Any], origins: Mapping[FieldPath, Origin], root: Origin
) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        path = real_path(problem["loc"], data)
        kind, context = problem["type"], problem.get("ctx", {})
        if kind == "extra_forbidden":
            text = f"unknown field; {nearest(str(path[-1]), path[:-1], data)}"
        elif kind == "missing" and not isinstance(path[-1], int):
            annotation, info = annotation_at(path, data)
            text = f"missing; expected {_expected(annotation, info)}"
        elif kind == "union_tag_not_found":
            text = f"'kind' is missing; {_kinds(path, data)}"
        elif kind == "union_tag_invalid":
            path = (*path, "kind")
            text = (
                f"expected {context.get('expected_tags', '').replace(', ', ' or ')}, got {_short(context.get('tag'))}"
            )
        elif kind == "value_error":
            text = str(context.get("error", problem["msg"]))
            named = re.match(r"([^\s:]+): ", text)
            if not path:  # a check across sections names its field itself
                where = _path_of(named.group(1), origins) if named else ()
                yield f"{_origin_of(where, origins, root)}: {text}"
                continue
            got = _value_at(path, data)
            text = text if isinstance(got, dict | None) else f"{text}, got {_short(got)}"
        else:
            while path and isinstance(path[-1], int):  # an item of a list: show the list
                path = path[:-1]
            annotation, info = annotation_at(path, data)
            expected = _expected(annotation, info) if annotation is not None else problem["msg"].lower()
            text = f"expected {expected}, got {_short(_value_at(path, data))}"
        yield f"{_origin_of(path, origins, root)}: {dotted(path) or 'configuration'}: {text}"


def _expected(annotation: Any, info: Any) -> str:
    if annotation is None:
        return "a value"
    if mapped_type(annotation) is not None and sections_of(mapped_type(annotation)):
        return "a section with one named section each"
    if sections_of(annotation):
        return "a section with fields below it"
    return type_text(annotation, info)


def _kinds(path: FieldPath, data: Mapping[str, Any]) -> str:
    annotation, _ = annotation_at(path, data)
    names = [get_args(section.model_fields["kind"].annotation)[0] for section in sections_of(annotation)]
    value = _value_at(path, data)
    typo = [key for key in (value if isinstance(value, dict) else ()) if value[key] in names]
    hint = f" ({typo[0]!r} is an unknown field; did you mean 'kind'?)" if typo else ""
    return f"expected 'kind: {names[0]}' or 'kind: {names[-1]}'{hint}" if names else "expected a kind"


def _path_of(name: str, origins: Mapping[FieldPath, Origin]) -> FieldPath:
    """Returns the longest known path that a dotted name starts with."""
    fitting = [path for path in origins if name == dotted(path) or name.startswith(dotted(path) + ".")]
    return max(fitting, key=len, default=())


def _origin_of(path: FieldPath, origins: Mapping[FieldPath, Origin], root: Origin) -> Origin:
    for end in range(len(path), 0, -1):
        if path[:end] in origins:
            return origins[path[:end]]
    return root


def _value_at(path: FieldPath, data: Any) -> Any:
    for key in path:
        data = child(data, key)
    return data


def _short(value: Any) -> str:
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, dict):
        text = "a section"
    else:
        text = dump_value(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def leaves(value: Any, at: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Yields the fields of a resolved configuration that hold plain values or lists, with their paths."""
    if isinstance(value, dict) and (value or not at):
        for key, below in value.items():
            yield from leaves(below, (*at, key))
    else:
        yield at, value


def _sources(config: RunConfig, data: Mapping[str, Any], origins: Mapping[FieldPath, Origin]) -> dict[str, str]:
    default = Origin("default")
    sources = {}
    for path, _ in leaves(config.model_dump(mode="json")):
        inside = [origin for where, origin in origins.items() if where[: len(path)] == path]
        changed = [origin for origin in inside if origin.file is None]
        given = _is_given(path, data)
        origin = changed[-1] if changed else _origin_of(path, origins, default) if given else default
        sources[dotted(path)] = origin.text
    return sources


def _is_given(path: FieldPath, data: Any) -> bool:
    for key in path:
        if not isinstance(data, Mapping) or key not in data:
            return False
        data = data[key]
    return True


def configuration_yaml(config: RunConfig, sources: Mapping[str, str] | None = None) -> str:
    """Returns the resolved configuration as YAML that loads again, with each field's source as a comment."""
    return "\n".join(_yaml_lines(config.model_dump(mode="json"), (), sources or {})) + "\n"


def _yaml_lines(section: Mapping[str, Any], at: FieldPath, sources: Mapping[str, str]) -> Iterator[str]:
    indent = "  " * len(at)
    for key, value in section.items():
        path = (*at, key)
        if isinstance(value, dict) and value:
            yield f"{indent}{dump_value(key)}:"
            yield from _yaml_lines(value, path, sources)
            continue
        line = f"{indent}{dump_value(key)}: {dump_value(value)}"
        source = sources.get(dotted(path))
        yield f"{line}  # {source}" if source else line
