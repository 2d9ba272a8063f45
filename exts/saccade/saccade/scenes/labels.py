"""Semantic labels: what each prim of the scene counts as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saccade.frame import CLASSES, OBSTACLE

if TYPE_CHECKING:
    from pxr import Usd

SYNONYMS = {
    "floor": "floor ground groundplane ground_plane road street pavement carpet lane floor_marking floor_decal",
    "structure": "wall walls ceiling roof pillar column beam building door window rack shelf shelving stairs stair "
    "staircase ramp railing fence gate lamp light sign panel",
    "obstacle": "box boxes crate carton cardboard pallet barrel drum cone traffic_cone forklift vehicle truck cart "
    "trolley ladder table chair desk bin bottle prop object furniture machine agv amr car",
    "person": "human people pedestrian worker man woman character",
    "robot": "humanoid manipulator arm",
    "background": "sky skydome unlabelled_background",
}
"""Labels that scenes commonly use, and the class that each counts as."""

_BUILT_IN = {word: name for name, words in SYNONYMS.items() for word in [name, *words.split()]}


@dataclass(slots=True)
class Labels:
    """Class indices by prim path, inherited from the nearest labelled ancestor."""

    own: dict[str, int] = field(default_factory=dict)
    """Labelled prims: path and class index."""
    unknown: dict[str, list[str]] = field(default_factory=dict)
    """Labels that nothing knows, each with the prims that carry it; they count as obstacle."""

    def class_of(self, path: str) -> int | None:
        """Returns the class index of a prim, or ``None`` when neither it nor an ancestor carries a label."""
        owner = self.owner_of(path)
        return None if owner is None else self.own[owner]

    def agreed_below(self, path: str) -> str | None:
        """Returns a labelled prim near an unlabelled one: below the nearest ancestor whose labels all agree.

        A collider without a label counts as what it stands beside: scenes label what is seen, not what collides.
        """
        ancestor = path.rsplit("/", 1)[0]
        if ancestor.count("/") < 2:
            return None
        prefix = ancestor + "/"
        near = [owner for owner in self.own if owner.startswith(prefix)]
        if near and len({self.own[owner] for owner in near}) == 1:
            return near[0]
        return None

    def owner_of(self, path: str) -> str | None:
        """Returns the path of the nearest labelled prim: the prim itself or an ancestor."""
        while path and path != "/":
            if path in self.own:
                return path
            path = path.rsplit("/", 1)[0]
        return None


def labels_from_stage(stage: Usd.Stage, *, further: Mapping[str, str] | None = None) -> Labels:
    """Reads every semantic label of a stage.

    ``UsdSemantics.LabelsAPI`` is read, the instance ``class`` before any other, and where it is absent the older
    ``semantic:<instance>:params:semanticData`` attributes.

    Args:
        stage: The stage.
        further: More labels and the class that each counts as; they take precedence over the built-in synonyms.

    Returns:
        The labels.
    """
    from pxr import Usd

    known = dict(_BUILT_IN)
    known.update({_normal(label): name for label, name in (further or {}).items()})
    labels = Labels()
    for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)):
        names = prim_labels(prim)
        if not names:
            continue
        path = str(prim.GetPath())
        index = _class_index(names, known)
        if index is None:
            labels.unknown.setdefault(names[0], []).append(path)
            index = OBSTACLE
        labels.own[path] = index
    return labels


def class_of_labels(names: Iterable[str], *, further: Mapping[str, str] | None = None) -> int | None:
    """Returns the class index that label names count as, the first known one deciding; ``None`` where none is known.

    Args:
        names: Labels of one thing.
        further: As for :func:`labels_from_stage`.
    """
    known = dict(_BUILT_IN)
    known.update({_normal(label): name for label, name in (further or {}).items()})
    return _class_index(names, known)


def prim_labels(prim: Usd.Prim) -> list[str]:
    """Returns the semantic labels that a prim itself carries, those of type ``class`` first."""
    modern: list[tuple[int, str, list[str]]] = []
    older: list[tuple[int, str, list[str]]] = []
    for attribute in prim.GetAuthoredAttributes():
        name = attribute.GetName()
        if name.startswith("semantics:labels:"):
            instance = name.split(":", 2)[2]
            values = attribute.Get()
            if values:
                modern.append((instance != "class", instance, [str(v) for v in values]))
        elif name.startswith("semantic:") and name.endswith(":params:semanticData"):
            kind = prim.GetAttribute(name[: -len("semanticData")] + "semanticType")
            is_class = kind and str(kind.Get()) == "class"
            value = attribute.Get()
            if value:
                older.append((not is_class, name, str(value).split(",")))
    for found in (modern, older):
        if found:
            return [label for _, _, values in sorted(found) for label in values]
    return []


def _class_index(names: Iterable[str], known: Mapping[str, str]) -> int | None:
    for name in names:
        label = _normal(name)
        found = known.get(label) or known.get(label.rstrip("s"))
        if found is None:
            # "wall_panel_02" is a wall: the first part that is known decides.
            found = next((known[part] for part in label.split("_") if part in known), None)
        if found is not None:
            return CLASSES.index(found)
    return None


def _normal(label: str) -> str:
    return label.strip().lower().replace(" ", "_").replace("-", "_")
