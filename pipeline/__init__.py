"""What runs distributed: data (Ray Data), training (Ray Train), serving (Ray Serve), evaluation."""
