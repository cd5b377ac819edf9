"""Reading YAML, the same way wherever a configuration or a part of one is read.

Jobs of label sources use this in their own interpreters: it imports only PyYAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pretraining.runtime.errors import UserError


class UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key written twice, where YAML would keep the last."""


def _unique_mapping(loader: UniqueKeyLoader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for index, (key, (key_node, _)) in enumerate(zip(keys, node.value, strict=True)):
        if key in keys[:index]:
            line = key_node.start_mark.line + 1
            raise UserError(f"line {line}: key '{key}' is given twice; keep one")
    return loader.construct_mapping(node, deep=True)


UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: str | Path, *keys: str) -> dict[str, Any]:
    """Read a YAML file that must have the given keys; an empty one has none.

    Raises
    ------
    UserError
        If there is no such file, it is something else, or has a key twice.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            content = yaml.load(handle, Loader=UniqueKeyLoader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a mapping of keys to values, as config/config.yaml is")
    for key in keys:
        if key not in content:
            raise UserError(f"{path}: key '{key}' is missing")
    return content
