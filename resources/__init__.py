"""The outside world: storage, models, experiment tracking, directories, the machine."""
