"""What goes out for people to read: the scoreboard, the curves and the report."""
