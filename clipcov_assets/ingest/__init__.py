"""What comes in: deliveries of pairs and evaluation sets, one format a file."""
