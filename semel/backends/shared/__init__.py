"""What several backends share: tokenizing, pooling, scoring, pair templates."""
