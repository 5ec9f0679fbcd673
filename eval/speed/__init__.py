"""What the work costs on this machine, and how near that is to the limit."""
