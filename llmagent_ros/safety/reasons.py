"""Why the guard intervenes: the words in its counts, verdicts and diagnostics."""

# Why it stops the robot.
E_STOP = "e_stop"
NO_SCAN = "no_scan"
STALE_SCAN = "stale_scan"
NO_JOINTS = "no_joint_states"
STALE_JOINTS = "stale_joint_states"
NO_COMMAND = "no_command"
STALE_COMMAND = "stale_command"
CLOCK_STOPPED = "clock_stopped"
# Why it stops a base or slows it down.
OBSTACLE = "obstacle"
BLIND = "blind"
# Why an input was not taken.
NOT_FINITE = "dropped_not_finite"
OTHER_BODY = "dropped_for_another_body"
REPEATED = "dropped_repeated_joint"
FUTURE_COMMAND = "dropped_future_command"
OLD_COMMAND = "dropped_out_of_order_command"
OLD_TELEOP = "dropped_old_teleop_command"
FUTURE_TELEOP = "dropped_future_teleop_command"
EMPTY_SCAN = "dropped_empty_scan"
FUTURE_SCAN = "dropped_future_scan"
FUTURE_JOINTS = "dropped_future_joint_states"
# Other interventions.
TELEOP = "teleop"
CLOCK_BACK = "clock_jumped_back"
