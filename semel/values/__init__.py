"""Values that every layer shares: frozen, plain, with no behaviour beyond their own arithmetic."""
