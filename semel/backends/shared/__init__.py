"""Code that several backends share: tokenising, pooling, scoring, pair templates."""
