"""Benchmarks: each measures the method and its peers in the same way and writes one JSON file."""
