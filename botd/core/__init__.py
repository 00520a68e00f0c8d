"""Policy: pure decisions. No I/O, no clock, no randomness; now and chance are arguments."""
