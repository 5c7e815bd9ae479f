"""What surrounds every route: API keys, limits, errors, request ids, metrics and the OpenAPI document."""
