"""Studies: each folder holds its claim, its command and its measured results."""
