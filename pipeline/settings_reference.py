"""Every setting of a settings class with its meaning, for terminals and for the reference page."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_UNBOUND = "required"


@dataclass(frozen=True)
class Setting:
    """One field of a settings class.

    Attributes:
        key: Dotted key, as `--set` takes it; `[]` stands for the items of a list.
        kind: Type, with the limits of its values.
        default: The default as YAML or Python writes it; `required` where there is none.
        meaning: The field's docstring on one line.
        group: Settings class that the field is made of; None for a plain value.
    """

    key: str
    kind: str
    default: str
    meaning: str
    group: type | None = None


def settings_of(schema: type, prefix: str = "", values: Any = None) -> Iterator[Setting]:
    """Every setting of a class and of the classes in it, in the order of the source.

    Args:
        schema: A `Settings` class, or a dataclass that is part of one.
        prefix: Prefix of the keys.
        values: Instance whose values are the defaults; None takes the class's own.
    """
    values = values if values is not None else _instance(schema)
    for own in fields_of(schema, values):
        yield dataclasses.replace(own, key=prefix + own.key)
        if own.group is not None:
            inner = getattr(values, own.key, None)
            inner = inner if isinstance(inner, own.group) else None
            yield from settings_of(own.group, f"{prefix}{own.key}.", inner)


def fields_of(schema: type, values: Any = None) -> Iterator[Setting]:
    """The fields of one class, without those of the classes in it."""
    values = values if values is not None else _instance(schema)
    for name, annotation, bounds, default, meaning in _fields(schema):
        group, is_list = _group(annotation)
        value = getattr(values, name, default)
        yield Setting(
            key=f"{name}[]" if is_list else name,
            kind=", ".join([_kind(annotation), *bounds]),
            default="" if group is not None and not is_list else _shown(value),
            meaning=" ".join(meaning.split()),
            group=group,
        )


def reference_page(schemas: Mapping[str, type]) -> str:
    """The reference of all settings as Markdown, one section for each class.

    Args:
        schemas: Settings class of each command.
    """
    uses: dict[type, list[str]] = {}
    for command, schema in schemas.items():
        uses.setdefault(schema, []).append(f"`audiocalm {command}`")
        for item in settings_of(schema):
            if item.group is not None:
                uses.setdefault(item.group, []).append(f"`{item.key}` of `{command}`")
    lines = ["# Settings", "", "Every setting of a recipe (`--config`) and of `--set a.b=c`."]
    for schema, places in uses.items():
        lines += ["", f"## {schema.__name__}", "", inspect.getdoc(schema) or ""]
        lines += ["", "Used by " + ", ".join(dict.fromkeys(places)) + ".", ""]
        lines += [_entry(item) for item in fields_of(schema)]
    return "\n".join(lines) + "\n"


def _entry(item: Setting) -> str:
    if item.group is not None:
        about = f"see [{item.group.__name__}](#{item.group.__name__.lower()})"
    else:
        about = f"{item.kind}; default `{item.default}`" if item.default != _UNBOUND else item.kind
    return f"- **`{item.key}`** ({about}). {item.meaning}"


def _fields(schema: Any) -> Iterator[tuple[str, Any, list[str], Any, str]]:
    """Name, annotation, bounds, default and docstring of each field."""
    if issubclass(schema, BaseModel):
        for name, info in schema.model_fields.items():
            default = info.get_default(call_default_factory=True, validated_data={})
            yield name, info.annotation, _bounds(info), default, info.description or ""
        return
    meanings, hints = _docstrings(schema), typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING:
            default = PydanticUndefined
        yield field.name, hints[field.name], [], default, meanings.get(field.name, "")


def _bounds(info: FieldInfo) -> list[str]:
    found = []
    for limit in info.metadata:
        for name, sign in _BOUNDS.items():
            value = getattr(limit, name, None)
            if value is not None:
                found.append(f"{sign} {value}")
    return found


def _docstrings(schema: type) -> dict[str, str]:
    """Docstrings of a dataclass's fields, which Python itself does not keep."""
    meanings: dict[str, str] = {}
    for base in reversed([cls for cls in schema.__mro__ if dataclasses.is_dataclass(cls)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, tree.body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                meanings[field.target.id] = str(after.value.value)  # type: ignore[attr-defined]
    return meanings


def _instance(schema: type) -> Any:
    """The class with all its defaults; None where a field has none."""
    if any(default is PydanticUndefined for _, _, _, default, _ in _fields(schema)):
        return None
    return schema()


def _group(annotation: Any) -> tuple[type | None, bool]:
    """Settings class or dataclass in an annotation, and whether it is the item of a list."""
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
    ):
        return annotation, False
    is_list = typing.get_origin(annotation) in (list, tuple)
    for part in typing.get_args(annotation):
        group, is_inner_list = _group(part)
        if group is not None:
            return group, is_list or is_inner_list
    return None, False


def _kind(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Annotated:
        return _kind(parts[0])
    if origin is typing.Literal:
        return " | ".join(map(str, parts))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_kind, parts))
    if origin in (list, tuple):
        return "list of " + " and ".join(dict.fromkeys(_kind(p) for p in parts if p is not ...))
    if origin is dict:
        return f"map of {_kind(parts[0])} to {_kind(parts[1])}"
    return re.sub(r"^(typing|builtins)\.", "", getattr(annotation, "__name__", str(annotation)))


def _shown(value: Any) -> str:
    if value is PydanticUndefined:
        return _UNBOUND
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return str(list(value))
    return str(value)
