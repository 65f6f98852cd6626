"""Server-side apply: which manager set which field, and what an apply changes.

As in Kubernetes, a field is owned per manager *and* operation: what an object got by POST is owned by (manager,
Update), and an apply of the same manager does not remove it.
"""

from __future__ import annotations

from typing import Any

from holdfast_operator.sim.objects import Object, copy

Path = tuple[str, ...]
Manager = tuple[str, str]  # name, operation: "Apply" or "Update"

# Lists whose items are merged by a key. Every other list is replaced as a whole.
_LIST_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_PORT_KEYS = ("containerPort", "port")  # of a container, of a Service
_SYSTEM = {
    "uid",
    "managedFields",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "name",
    "namespace",
}


def item_key(field: str, item: Any) -> str | None:
    """The key of a list item that is merged by key; None if the list is atomic."""
    if not isinstance(item, dict):
        return None
    if field == "ports":
        number = next((item[key] for key in _PORT_KEYS if key in item), None)
        return None if number is None else f"{number}/{item.get('protocol', 'TCP')}"
    keys = _LIST_KEYS.get(field)
    return None if keys is None else "/".join(str(item.get(key)) for key in keys)


def leaves(value: Any, at: Path = ()) -> dict[Path, Any]:
    """Each leaf of the object with its path, without what only the server sets."""
    found: dict[Path, Any] = {}
    _collect(value, at, found)
    return found


def _collect(value: Any, at: Path, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if at == ("metadata",) and key in _SYSTEM:
                continue
            if at or key in ("metadata", "spec", "data", "type"):
                _collect(inner, (*at, key), found)
    elif isinstance(value, list) and value and item_key(at[-1], value[0]) is not None:
        for item in value:
            _collect(item, (*at, f"[{item_key(at[-1], item)}]"), found)
    else:
        found[at] = value


def _remove(obj: Any, path: Path, field: str = "") -> bool:
    """Remove the leaf at `path`, and what becomes empty by that. Returns whether `obj` is empty now."""
    head, rest = path[0], path[1:]
    if isinstance(obj, list):
        for index, item in enumerate(obj):
            if f"[{item_key(field, item)}]" == head:
                if not rest or _remove(item, rest):
                    del obj[index]
                break
        return not obj
    if isinstance(obj, dict) and head in obj and (not rest or _remove(obj[head], rest, head)):
        del obj[head]
    return not obj


def _merge(into: Any, wanted: Any, field: str = "") -> Any:
    if isinstance(into, dict) and isinstance(wanted, dict):
        for key, value in wanted.items():
            into[key] = _merge(into[key], value, key) if key in into else copy_any(value)
        return into
    if isinstance(into, list) and isinstance(wanted, list) and wanted and item_key(field, wanted[0]) is not None:
        there = {item_key(field, item): index for index, item in enumerate(into)}
        for item in wanted:
            index = there.get(item_key(field, item))
            if index is None:
                into.append(copy_any(item))
            else:
                into[index] = _merge(into[index], item)
        return into
    return copy_any(wanted)


def copy_any(value: Any) -> Any:
    return copy({"": value})[""]


def _paths(fields: Object, at: Path, found: set[Path]) -> None:
    """The leaves of a tree in the form of managedFields."""
    for key, inner in fields.items():
        part = f"[{key[2:]}]" if key.startswith("k:") else key[2:]
        if inner:
            _paths(inner, (*at, part), found)
        else:
            found.add((*at, part))


class Ownership:
    """The managers of the fields of one object."""

    def __init__(self) -> None:
        self._owned: dict[Manager, set[Path]] = {}
        self._shown: list[Object] | None = None  # what `shown` answered, until something changes

    def shown(self) -> list[Object]:
        """As the API server shows it in metadata.managedFields. The caller must not change it."""
        if self._shown is None:
            self._shown = self._show()
        return self._shown

    def _show(self) -> list[Object]:
        found = []
        for (manager, operation), paths in self._owned.items():
            fields: Object = {}
            for path in sorted(paths):
                at = fields
                for part in path:
                    at = at.setdefault(f"k:{part[1:-1]}" if part.startswith("[") else f"f:{part}", {})
            found.append({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields})
        return found

    def replace(self, managers: list[Object]) -> None:
        """Somebody wrote metadata.managedFields."""
        self._owned, self._shown = {}, None
        for entry in managers:
            paths = self._owned.setdefault((entry["manager"], entry["operation"]), set())
            _paths(entry["fieldsV1"], (), paths)

    def updated(self, manager: str, before: Object | None, after: Object) -> None:
        """`manager` wrote the object by POST or PUT: it owns what it changed, and nobody else does."""
        self._shown = None
        old = leaves(before) if before is not None else {}
        new = leaves(after)
        changed = {path for path, value in new.items() if path not in old or old[path] != value}
        gone = set(old) - set(new)
        for paths in self._owned.values():
            paths -= changed | gone
        self._owned.setdefault((manager, "Update"), set()).update(changed)

    def applied(self, manager: str, live: Object, wanted: Object) -> Object:
        """The object after `manager` applied `wanted` with force."""
        me = (manager, "Apply")
        self._shown = None
        new = leaves(wanted)
        result = copy(live)
        others = set().union(*(paths for key, paths in self._owned.items() if key != me))
        for path in sorted(self._owned.get(me, set()) - set(new)):
            if path not in others:
                _remove(result, path)
        old = leaves(live)
        taken = {path for path, value in new.items() if old.get(path) != value}
        for key, paths in self._owned.items():
            if key != me:
                paths -= taken
        self._owned[me] = set(new)
        body = {key: value for key, value in wanted.items() if key != "metadata"}
        merged: Object = _merge(result, body)
        kept = {k: v for k, v in wanted["metadata"].items() if k not in _SYSTEM}
        merged["metadata"] = _merge(merged["metadata"], kept)
        return merged
