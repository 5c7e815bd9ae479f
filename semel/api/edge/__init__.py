"""Around every route: keys, limits, errors, request ids, metrics, the OpenAPI document."""
