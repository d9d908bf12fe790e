"""One module for each command of the command line; the only ones that print."""
