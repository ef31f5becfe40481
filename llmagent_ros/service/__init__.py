"""Files with which systemd runs the agent: units, their environment, where their logs go. Nothing installs them."""
