# An empty file.
