"""The streaming endpoint on Ray Serve."""
