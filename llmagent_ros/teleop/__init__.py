"""What a person drives and judges a robot with: keys of a terminal, a joystick. ROS-free."""
