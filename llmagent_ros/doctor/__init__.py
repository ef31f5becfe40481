"""Whether a robot is as its contract says: what was seen of the running graph, examined without ROS."""
