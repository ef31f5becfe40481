"""The llmagent command: one module for each subcommand."""
