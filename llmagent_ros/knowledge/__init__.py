"""Skills: kept on disk with transactions, found by language, never overwritten by another."""
