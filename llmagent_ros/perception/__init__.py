"""From sensor readings to scene text."""
