"""Files to Sample to TokenBatch."""
