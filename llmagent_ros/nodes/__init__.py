"""The ROS 2 graph: thin nodes that convert, call and publish. The only place that imports rclpy."""
