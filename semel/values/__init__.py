"""Values that every layer shares: plain and frozen, without behaviour beyond their own arithmetic."""
