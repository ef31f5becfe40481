"""The live terminal view of a run. ROS-free: a node fills `ConsoleState`, `LiveConsole` shows it."""
