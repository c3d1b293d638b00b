"""What the Snakefile and its rules call: the graph of a suite, the checks before a build, one build at a time."""
