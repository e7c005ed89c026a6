"""What goes out: the scoreboard, the pictures and the report for people; subsets as files for other tools."""
