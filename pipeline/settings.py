"""Settings: defaults, then a recipe file, then `--set a.b=c`; unknown keys are errors.

Every job's settings are one frozen pydantic tree. The resolved tree is saved with what it produced.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import SettingsError


class Settings(BaseModel):
    """Base of every settings tree: frozen, unknown keys forbidden, defaults checked."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    def digest(self) -> str:
        """SHA-256 of the resolved values: equal settings have equal digests."""
        return digest_of(self.model_dump(mode="json"))


SettingsT = TypeVar("SettingsT", bound=Settings)


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """The same text for the same JSON value; that of a list is its items', with commas, in [ ]."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def load_settings(
    schema: type[SettingsT], recipe: str | Path | None = None, overrides: Sequence[str] = ()
) -> SettingsT:
    """Resolve defaults, a recipe file and dotted overrides into one tree.

    Args:
        schema: The settings class of the job.
        recipe: YAML file; None takes the defaults.
        overrides: `a.b=c` pairs, later ones win; values are read as YAML.

    Raises:
        SettingsError: With the offending key and the nearest known one, or the value and its limit.
    """
    values: dict[str, Any] = {} if recipe is None else read_recipe(Path(recipe))
    for text in overrides:
        if "=" not in text:
            raise SettingsError(f"--set {text!r} is not of the form key=value")
    try:
        merged = OmegaConf.merge(OmegaConf.create(values), OmegaConf.from_dotlist(list(overrides)))
        resolved = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise SettingsError(f"cannot combine recipe and overrides: {error}") from error
    try:
        return schema.model_validate(resolved)
    except ValidationError as error:
        raise SettingsError(_explain(schema, error)) from error


def changed(settings: SettingsT, changes: Mapping[str, Any]) -> SettingsT:
    """The settings with nested changes; mappings are merged, everything else is replaced.

    Raises:
        SettingsError: If a key is unknown or a value is not allowed.
    """
    merged = OmegaConf.merge(settings.model_dump(mode="json"), dict(changes))
    try:
        return type(settings).model_validate(OmegaConf.to_container(merged, resolve=True))
    except ValidationError as error:
        raise SettingsError(_explain(type(settings), error)) from error


def save_settings(settings: Settings) -> str:
    """The resolved tree as YAML that `load_settings` reads back to an equal tree."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty one.

    Raises:
        SettingsError: If it cannot be read, or holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"recipe {path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"recipe {path} holds a {type(values).__name__}, not a mapping")
    return values


def _explain(schema: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = list(known_keys(schema))
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.3)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
            lines.append(f"unknown setting {key!r}{hint}")
        else:
            lines.append(f"setting {key!r} is {item['input']!r}: {item['msg']}")
    return "\n".join(lines)


def known_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a settings class, leaves and branches."""
    for name, info in schema.model_fields.items():
        yield prefix + name
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from known_keys(annotation, f"{prefix}{name}.")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys, for parameter logs."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
