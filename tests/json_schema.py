"""As much of JSON Schema 2020-12 as our schemas use; an unknown keyword is an error, not ignored."""

from typing import Any

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
SAID = {"$schema", "$defs", "title", "description", "default", "discriminator", "format"}


def faults(schema: dict[str, Any], value: Any, root: dict[str, Any], at: str = "") -> list[str]:
    """Why `value` is not what the schema asks for.

    >>> faults({"type": "integer", "minimum": 3}, 2, {})
    [': 2 is not minimum 3']
    """
    if "$ref" in schema:
        return faults(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root, at)
    found = []
    for keyword, wanted in schema.items():
        if keyword not in SAID and not holds(keyword, wanted, schema, value, root, at, found):
            found.append(f"{at}: {value!r} is not {keyword} {wanted!r}")
    return found


def holds(
    keyword: str, wanted: Any, schema: dict[str, Any], value: Any, root: dict, at: str, found: list[str]
) -> bool:
    """Whether one keyword is satisfied; faults of parts go to `found`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match keyword:
        case "type":
            return isinstance(value, TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
        case "const":
            return value == wanted
        case "enum":
            return value in wanted
        case "anyOf":
            return any(not faults(option, value, root) for option in wanted)
        case "oneOf":
            return sum(not faults(option, value, root) for option in wanted) == 1
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum" if is_number:
            strict, sign = keyword.startswith("exclusive"), 1 if keyword.lower().endswith("minimum") else -1
            return sign * value > sign * wanted if strict else sign * value >= sign * wanted
        case "required" if isinstance(value, dict):
            return set(wanted) <= set(value)
        case "minItems" | "minProperties" if isinstance(value, list | dict):
            return len(value) >= wanted
        case "maxItems" if isinstance(value, list):
            return len(value) <= wanted
        case "properties" if isinstance(value, dict):
            for key in set(wanted) & set(value):
                found += faults(wanted[key], value[key], root, f"{at}.{key}")
        case "propertyNames" if isinstance(value, dict):
            found += [fault for key in value for fault in faults(wanted, key, root, f"{at}.{key}")]
        case "additionalProperties" if isinstance(value, dict):
            for key in set(value) - set(schema.get("properties", {})):
                if isinstance(wanted, dict):
                    found += faults(wanted, value[key], root, f"{at}.{key}")
                elif not wanted:
                    found.append(f"{at}: unknown key {key}")
        case "prefixItems" if isinstance(value, list):
            for i, (part, item) in enumerate(zip(wanted, value, strict=False)):
                found += faults(part, item, root, f"{at}.{i}")
        case "items" if isinstance(value, list):
            found += [fault for item in value for fault in faults(wanted, item, root, at)]
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            pass
        case "required" | "minItems" | "minProperties" | "maxItems" | "properties" | "propertyNames":
            pass
        case "additionalProperties" | "prefixItems" | "items":
            pass
        case _:
            raise AssertionError(f"{at}: {keyword} is no keyword that is known here")
    return True
