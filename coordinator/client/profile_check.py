"""A profile, held against the schema that the server gives for it."""

from __future__ import annotations

from typing import Any

import jsonschema_rs


def fault_of_profile(schema: dict[str, Any], profile: dict[str, Any]) -> str | None:
    """Say what is wrong with a profile, and in which field; None if the schema takes it, or cannot be read."""
    try:
        validator = jsonschema_rs.validator_for(
            schema,
            retriever=_fetch_nothing,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000),  # a server's patterns end soon
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError):
        return None  # the server itself says at the start whether it takes the profile

    for error in validator.iter_errors(profile):
        field = ".".join(map(str, error.instance_path))
        return f"{field}: {error.message}" if field else str(error.message)
    return None


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched: a schema is whole in itself")
