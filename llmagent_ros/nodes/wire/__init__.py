"""Conversions between ROS messages and the value types, one module per direction of concern."""
