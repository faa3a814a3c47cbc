"""Jobs on a Ray cluster from outside: package the code, submit, follow, stop."""
