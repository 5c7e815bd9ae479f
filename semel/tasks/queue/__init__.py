"""How work travels: queue names, messages, dispatch, and the answers that come back."""
