"""What a person drives a robot with: keys of a terminal, a joystick. ROS-free."""
